"""From command-line options to a checked schedule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from ppgs.errors import ScheduleError
from ppgs.schedule.files import dump, load, parse, read_shipped
from ppgs.schedule.model import PlanFacts, Schedule, parse_mirroring
from ppgs.schedule.recipe import Recipe, check, check_effect, parse_start, require_stage, resolve

# On two CPU cores this trains the demo above 0.85 Dice well within four minutes.
DEMO_EPOCHS, DEMO_ITERATIONS = 40, 20


class Wanted(Protocol):
    """The part of a request that determines the schedule; `schedule` is the text of a schedule file or recipe."""

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
    @property
    def from_stage(self) -> int | None: ...
    @property
    def start_patch(self) -> str | None: ...


def read_schedule(given: str, *, demo: bool = False, epochs: int | None = None) -> tuple[str, str]:
    """Read name and text of `--schedule NAME|FILE`; raises `ScheduleError` before anything else is done.

    A recipe that says nothing of its length has `epochs` (a trainer class's own number) if given, and is short for the
    demo.
    """
    path = Path(given)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        content = load(path)
        named = content.name if content.name not in (None, "custom") else path.stem
        # As `name` in a file may be.
        name = re.sub(r"[^A-Za-z0-9.-]", "-", str(named))[:64].strip(".-") or "custom"
    else:
        content, name = read_shipped(given), given
    if isinstance(content, Recipe):
        usual = {"epochs": DEMO_EPOCHS, "iterations_per_epoch": DEMO_ITERATIONS} if demo else {}
        usual |= {} if epochs is None else {"epochs": epochs}
        content = content.model_copy(update={k: v for k, v in usual.items() if k not in content.model_fields_set})
    return name, dump(content)


def make_schedule(wanted: Wanted, facts: PlanFacts) -> Schedule:
    """Resolve the requested schedule and check it against these plans.

    Raises `ScheduleError`: it was made for other plans, has fewer epochs than stages, or options contradict a file
    with explicit stages.
    """
    content = _content(wanted)
    schedule = resolve(content, facts, from_stage=wanted.from_stage or 1) if isinstance(content, Recipe) else content
    check(schedule, facts, wanted.schedule_name)
    return schedule


def check_without_plans(wanted: Wanted, **known: str) -> None:
    """Raise `ScheduleError` as `make_schedule` where that needs no plans; `known` are the facts of them that are."""
    content = _content(wanted)
    if isinstance(content, Recipe):
        check_effect(content)
    elif content.made_for is not None:
        check(content, content.made_for.model_copy(update=known), wanted.schedule_name)


def _content(wanted: Wanted) -> Recipe | Schedule:
    """Return the requested recipe or stages with the options applied; raises `ScheduleError` if they contradict."""
    content = parse(wanted.schedule, wanted.schedule_name)
    given: dict[str, object] = {
        "epochs": wanted.epochs,
        "iterations_per_epoch": wanted.iterations,
        "batch_size": wanted.batch_size,
        "mirroring": read_mirroring(wanted.mirroring),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if isinstance(content, Recipe):
        changes["name"] = content.name or wanted.schedule_name
        if (patch := _start_patch(wanted)) is not None:
            changes["start"] = patch
        return content.model_copy(update=changes)
    fixed = [key for key in ("epochs", "batch_size") if key in changes]
    if fixed:
        raise ScheduleError(
            f"the schedule's stages are explicit: --{fixed[0].replace('_', '-')} cannot change them",
            wanted.schedule_name,
            "edit the file, or use a recipe",
        )
    return _without_first(content.model_copy(update=changes), wanted)


def _without_first(schedule: Schedule, wanted: Wanted) -> Schedule:
    """Return explicit stages without the first ones and their epochs."""
    if (patch := _start_patch(wanted)) is not None:
        sizes = [stage.patch_size for stage in schedule.stages]
        if patch not in sizes:
            listed = ", ".join(dict.fromkeys(",".join(map(str, size)) for size in sizes))
            raise ScheduleError("the schedule has no stage with this patch", "--start-patch", f"its patches: {listed}")
        index = sizes.index(patch)
    else:
        require_stage(wanted.from_stage or 1, len(schedule.stages))
        index = (wanted.from_stage or 1) - 1
    if index == 0:
        return schedule
    stages = schedule.stages[index:]
    if (problem := schedule.learning_rate.problem(sum(stage.epochs for stage in stages))) is not None:
        raise ScheduleError(problem, "learning_rate.warmup", "begin with an earlier stage, or shorten the warm-up")
    # What had been decided of a schedule that was planned while it trained counted from its first stage.
    return schedule.changed(stages=stages, decayed=None)


def _start_patch(wanted: Wanted) -> tuple[int, ...] | None:
    """Parse `--start-patch` as numbers; raises `ScheduleError`."""
    if wanted.start_patch is None:
        return None
    if wanted.from_stage is not None:
        raise ScheduleError("--from-stage and --start-patch both say where to begin", "--start-patch", "give one")
    try:
        patch = parse_start([int(size) for size in wanted.start_patch.replace("x", ",").split(",")])
    except ValueError:
        patch = None
    if not isinstance(patch, tuple):
        raise ScheduleError(f"'{wanted.start_patch}' is no patch size", "--start-patch", "give it as 64,64,64")
    return patch


def read_mirroring(given: str | None) -> object:
    """Parse `--mirroring on|off|AXES`; raises `ScheduleError`."""
    try:
        return parse_mirroring(given)
    except ValueError as problem:
        raise ScheduleError(f"'{given}': {problem}", "--mirroring", "use on, off, or axes such as 0,1") from None
