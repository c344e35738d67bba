"""Questions to a person at a terminal: which task or run to use, and whether to start. Never asked elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import typer
from rich.console import RenderableType

from ppgs.cli.output import err, note
from ppgs.cli.runs_table import table_of
from ppgs.commands.runs import RunRow
from ppgs.errors import BadInput, nearest
from ppgs.runs.registry import FIRST_RUN, find_runs
from ppgs.tasks import Roots

_SHOWN = 30


def somebody() -> bool:
    """Return whether there is a person to be asked: input and narration are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def need(metavar: str, command: str, remedy: str) -> BadInput:
    """Return the error for a missing argument when no person is there to ask."""
    return BadInput(f"missing argument '{metavar}'", f"ppgs {command}", remedy)


def need_run(command: str, roots: Roots, use: str) -> BadInput:
    """Return the error for a missing run, or one that explains how to train the first. `use` continues 'give ...'."""
    if not any(find_runs(roots.results)):
        return BadInput(f"nothing has been trained yet, so there is nothing to {command}", roots.results, FIRST_RUN)
    return need("RUN", command, f"'ppgs runs' lists the runs; {use}")


def choose(
    names: Sequence[str], shown: RenderableType, what: str, *, several: bool = False, default: str | None = "1"
) -> list[str]:
    """Return the names that a person picks by number or name; `default` for an empty answer. Raises `typer.Abort`."""
    err.print(shown)
    text = f"{what} (number or name{', also 1,3 or 2-4' if several else ''})"
    while True:
        answer = str(typer.prompt(text, default=default, err=True))
        try:
            return _picked(answer, names, several=several)
        except ValueError as problem:
            note(str(problem))


def choose_runs(rows: Sequence[RunRow], what: str, *, several: bool = False, default: str | None = "1") -> list[str]:
    """Return the names of the runs that a person picks; the newest are listed first."""
    newest = sorted(rows, key=lambda row: row.manifest.updated, reverse=True)
    shown = newest[:_SHOWN]
    if len(newest) > len(shown):
        note(f"the newest {len(shown)} of {len(newest)}; 'ppgs runs' lists all")
    # Two datasets may share a short name, and their runs a name.
    called = [row.manifest.name for row in newest]
    names = [name if called.count(name) == 1 else str(row.path) for name, row in zip(called, newest, strict=True)]
    return choose(names, table_of(shown, numbered=True), what, several=several, default=default)


def _picked(answer: str, names: Sequence[str], *, several: bool) -> list[str]:
    if answer in names:
        return [answer]
    picked: list[str] = []
    for part in re.split(r"[,\s]+", answer.strip(", ")):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None and part in names:
            picked.append(part)
            continue
        if match is None:
            raise ValueError(f"'{part}' is neither a number nor a name; {nearest(part, names)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= len(names):
            raise ValueError(f"'{part}' is not between 1 and {len(names)}")
        picked += names[first - 1 : last]
    picked = list(dict.fromkeys(picked))
    if len(picked) > 1 and not several:
        raise ValueError("choose one")
    return picked


def agree(question: str) -> bool:
    """Ask a yes-or-no question; an empty answer is yes."""
    return bool(typer.confirm(question, default=True, err=True))
