"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ppgs.errors import Problem

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check; `data` holds its figures for scripts."""

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
