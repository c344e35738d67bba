"""Output: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ppgs.errors import PpgsError

if not os.environ.get("COLUMNS", "80").strip("0"):
    # Rich prints nothing where a wrapper says that lines have no column.
    del os.environ["COLUMNS"]
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


class LastingStream:
    """A stream whose reader may leave: what would be written to a closed pipe or terminal is then dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Let the file lead nowhere, so that what is left in buffers does not fail again at the end."""
        with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
            self._stream.flush()


def outlast_readers() -> None:
    """Let a command continue when its stderr is closed, and replace streams that were closed before it started."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    sys.stderr = LastingStream(sys.stderr)


def tolerate_any_name() -> None:
    """Escape characters that a stream cannot encode, such as bytes of a file name that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(value: object) -> None:
    """Print one JSON document on stdout, for scripts."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False, default=str)
    sys.stdout.write("\n")


def show_script(text: str, *, as_json: bool) -> None:
    """Print a script that would be submitted to Slurm."""
    if as_json:
        print_json({"script": text})
    else:
        out.print(text, markup=False)


def note(message: str) -> None:
    """Print a progress line on stderr."""
    err.print(escape(message))


def warn(message: str) -> None:
    err.print(f"[yellow]warning:[/] {escape(message)}")


def show_error(error: PpgsError) -> None:
    """Print problems as a short block each (what, where, remedy); long lists of one kind are shortened."""
    shown = error.problems[:20]
    if len(error.problems) > 1:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
    for problem in shown:
        head = "[bold red]error:[/]" if len(error.problems) == 1 else "[red]  -[/]"
        err.print(f"{head} {escape(problem.what)}")
        if problem.where:
            err.print(f"    where:  {escape(problem.where)}")
        if problem.remedy:
            err.print(f"    remedy: {escape(problem.remedy)}")
    if len(error.problems) > len(shown):
        err.print(f"  and {len(error.problems) - len(shown)} more")
