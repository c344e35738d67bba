"""Output: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.markup import escape

from ppgs.errors import PpgsError

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def tolerate_any_name() -> None:
    """Escape characters that a stream cannot encode, such as bytes of a file name that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(value: object) -> None:
    """Print one JSON document on stdout, for scripts."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False, default=_encode)
    sys.stdout.write("\n")


def _encode(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


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
