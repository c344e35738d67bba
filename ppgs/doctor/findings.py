"""Findings of checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ppgs.errors import DatasetError, Problem, Problems

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check; `data` has its figures for scripts."""

    check: str
    level: Level
    what: str
    where: str = ""
    remedy: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, what: str, **data: Any) -> Finding:
    return Finding(check, "ok", what, data=data)


def warning(check: str, what: str, remedy: str, where: object = "", **data: Any) -> Finding:
    return Finding(check, "warning", what, str(where), remedy, data)


def error(check: str, what: str, remedy: str, where: object = "", **data: Any) -> Finding:
    return Finding(check, "error", what, str(where), remedy, data)


def of_problem(check: str, problem: Problem) -> Finding:
    return Finding(check, "error", problem.what, problem.where, problem.remedy)


def raise_errors(findings: Iterable[Finding], name: str) -> None:
    """Raise `DatasetError` with all errors among the findings, if there are any."""
    problems = Problems([Problem(f.what, f.where, f.remedy) for f in findings if f.level == "error"])
    problems.raise_as(DatasetError, f"{len(problems.found)} problems in {name}")


def warnings_of(findings: Iterable[Finding]) -> list[str]:
    """Return each warning among the findings as one line: what, where and the remedy."""
    return ["; ".join(part for part in (f.what, f.where, f.remedy) if part) for f in findings if f.level == "warning"]


def names_text(names: Sequence[str], most: int = 10) -> str:
    """Join names, shortened if there are many: `a, b, c and 12 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def files_text(files: Sequence[Path]) -> str:
    """Return the place of files of one folder: the path of a single one, else `folder: a, b, c and 12 more`."""
    return str(files[0]) if len(files) == 1 else f"{files[0].parent}: {names_text([f.name for f in files])}"


def printable(name: str) -> str:
    """Escape line breaks, terminal codes and broken characters in a name: `a\\nb`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)
