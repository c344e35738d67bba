"""The Typer application: gathers the commands and turns errors into exit codes."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import ppgs
from ppgs.cli import output
from ppgs.errors import DiskFull, ExitCode, PpgsError

# Typer brings its own copy of Click or uses the installed one, depending on its version: ask it, not Click.
_UsageError: Any = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")

app = typer.Typer(
    name="ppgs",
    help="Train nnU-Net under the Progressive Growing of Patch Size curriculum.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        output.out.print(f"ppgs {ppgs.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _register() -> None:
    from ppgs.cli import (
        compare,
        completion,
        doctor,
        export,
        monitor,
        plan_schedule,
        predict,
        prepare,
        resume,
        runs,
        train,
    )

    for module in (plan_schedule, prepare, train, resume, monitor, predict, export, compare, runs, doctor, completion):
        module.register(app)


def main() -> None:
    """Entry point: runs a command; every `PpgsError` becomes a short block on stderr and its exit code."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    _register()
    try:
        code = app(args=arguments, prog_name="ppgs", standalone_mode=False)
    except PpgsError as error:
        if debug:
            raise
        output.show_error(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        output.note("stopped")
        sys.exit(ExitCode.STOPPED)
    except _UsageError as error:
        error.show()
        sys.exit(ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(ExitCode.STOPPED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitCode.UNFORESEEN)
    except Exception as error:
        if debug:
            raise
        full = DiskFull.of(error) if isinstance(error, OSError) else None
        if full is not None:
            output.show_error(full)
            sys.exit(full.exit_code)
        output.show_error(
            PpgsError(f"{type(error).__name__}: {error}", "unforeseen", "run again with --debug and report it")
        )
        sys.exit(ExitCode.UNFORESEEN)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)
