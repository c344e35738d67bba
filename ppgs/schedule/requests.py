"""From what was asked for on the command line to a checked schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ppgs.errors import ScheduleError
from ppgs.schedule.files import dump, load, parse, read_shipped
from ppgs.schedule.model import PlanFacts, Schedule, parse_mirroring
from ppgs.schedule.recipe import Recipe, check, resolve

# On two CPU cores this trains the demo above 0.85 Dice well within four minutes.
DEMO_EPOCHS, DEMO_ITERATIONS = 40, 20


class Wanted(Protocol):
    """The part of a request that a schedule depends on; `schedule` is the text of a schedule file or recipe."""

    @property
    def schedule(self) -> str: ...
    @property
    def schedule_name(self) -> str: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def iterations(self) -> int | None: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def mirroring(self) -> str | None: ...


def read_schedule(given: str, *, demo: bool = False) -> tuple[str, str]:
    """Name and text of `--schedule NAME|FILE`; raises `ScheduleError` before anything else is done.

    For the demo a recipe that says nothing of its length is a short one.
    """
    path = Path(given)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        content = load(path)
        named = content.name if content.name not in (None, "custom") else path.stem
        name = "".join(c if c.isalnum() or c in ".-" else "-" for c in str(named)).strip(".-") or "custom"
    else:
        content, name = read_shipped(given), given
    if demo and isinstance(content, Recipe):
        short = {"epochs": DEMO_EPOCHS, "iterations_per_epoch": DEMO_ITERATIONS}
        content = content.model_copy(update={k: v for k, v in short.items() if k not in content.model_fields_set})
    return name, dump(content)


def make_schedule(wanted: Wanted, facts: PlanFacts) -> Schedule:
    """The schedule asked for, resolved and checked against these plans.

    Raises `ScheduleError`: it was made for other plans, has fewer epochs than stages, or options contradict a file
    with explicit stages.
    """
    content = parse(wanted.schedule, wanted.schedule_name)
    given: dict[str, object] = {
        "epochs": wanted.epochs,
        "iterations_per_epoch": wanted.iterations,
        "batch_size": wanted.batch_size,
        "mirroring": read_mirroring(wanted.mirroring),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if isinstance(content, Recipe):
        schedule = resolve(content.model_copy(update=changes), facts)
    else:
        fixed = [key for key in ("epochs", "batch_size") if key in changes]
        if fixed:
            raise ScheduleError(
                f"the schedule's stages are explicit: --{fixed[0].replace('_', '-')} cannot change them",
                wanted.schedule_name,
                "edit the file, or use a recipe",
            )
        schedule = content.model_copy(update=changes)
    check(schedule, facts, wanted.schedule_name)
    return schedule


def read_mirroring(given: str | None) -> object:
    """`--mirroring on|off|AXES` as a schedule has it; raises `ScheduleError`."""
    try:
        return parse_mirroring(given)
    except ValueError as problem:
        raise ScheduleError(f"'{given}': {problem}", "--mirroring", "use on, off, or axes such as 0,1") from None
