"""The Typer application: turns errors into exit codes. Its commands are in `ppgs.cli.registry`."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated, Any

import typer

import ppgs
from ppgs.cli import output
from ppgs.cli.help import Group
from ppgs.errors import BadInput, DiskFull, ExitCode, PathUnusable, PpgsError, nearest
from ppgs.imports import BrokenInstallation
from ppgs.processes.signals import interrupt_on_request

# Typer brings its own copy of Click or uses the installed one, depending on its version: ask it, not Click.
_UsageError: Any = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")

app = typer.Typer(
    name="ppgs",
    help="Train nnU-Net under the Progressive Growing of Patch Size curriculum.",
    no_args_is_help=True,
    add_completion=False,
    # Help is plain text in our own groups, see ppgs.cli.help.
    cls=Group,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
)

_FIRST_STEPS = """\b
First steps:
  ppgs train demo                      train a small synthetic task
  ppgs prepare --images DIR --labels DIR --name NAME
                                       make a task of your own data
  ppgs train NAME                      train it
  ppgs predict RUN -i DIR -o DIR       segment new images"""


def _version(wanted: bool) -> None:
    if wanted:
        output.out.print(f"ppgs {ppgs.__version__}")
        raise typer.Exit


@app.callback(epilog=_FIRST_STEPS)
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    # Taken from anywhere on the line before parsing; declared here so that --help lists it.
    __: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors; anywhere on the line.")] = False,
) -> None:
    pass


def _told(error: Any) -> BadInput:
    """Return Click's message for a wrong command line as a problem (what, where, remedy)."""
    message, _, hint = str(error.format_message()).partition(" Did you mean ")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "ppgs"
    remedy = f"did you mean {hint}" if hint else ""
    if (option := getattr(error, "option_name", None)) and context is not None and hasattr(error, "possibilities"):
        message = f"no such option '{option}'"
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        remedy = nearest(option, known) if difflib.get_close_matches(option, known) else ""
    if message.startswith("Got unexpected extra argument"):
        remedy = remedy or f"write patterns such as '*.nii.gz' in quotes; '{where} --help' lists the available choices"
    what = message[:1].lower() + message[1:].rstrip(".")
    return BadInput(what, where, remedy or f"'{where} --help' lists the available choices")


def main() -> None:
    """Run a command; show every `PpgsError` as a short block on stderr and return its exit code."""
    output.tolerate_any_name()
    output.outlast_readers()
    # A termination ends a command as Ctrl-C does, so that partial files are removed.
    interrupt_on_request()
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        if sys.platform == "win32":
            raise BadInput("ppgs runs on Linux and macOS", "Windows", "use WSL 2 (Windows Subsystem for Linux)")
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
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            output.show_error(_told(error))
        sys.exit(ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(ExitCode.STOPPED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitCode.UNFORESEEN)
    except Exception as error:
        if debug:
            raise
        known: PpgsError | None
        if isinstance(error, OSError):
            known = DiskFull.of(error) or PathUnusable.of(error)
        else:
            known = BrokenInstallation.of(error)
        if known is not None:
            output.show_error(known)
            sys.exit(known.exit_code)
        output.show_error(
            PpgsError(f"{type(error).__name__}: {error}", "unforeseen", "run again with --debug and report it")
        )
        sys.exit(ExitCode.UNFORESEEN)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)
