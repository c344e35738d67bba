"""From command-line options to a checked schedule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ppgs.errors import ScheduleError
from ppgs.formatting import counted
from ppgs.schedule.files import dump, load, parse, read_shipped
from ppgs.schedule.model import PlanFacts, Schedule, Stage, parse_mirroring
from ppgs.schedule.recipe import Recipe, check, parse_start, resolve

# On two CPU cores this trains the demo above 0.85 Dice well within four minutes.
DEMO_EPOCHS, DEMO_ITERATIONS = 40, 20
# More than a curriculum has stages.
_ENOUGH_EPOCHS = 10_000


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


def read_schedule(given: str, *, demo: bool = False) -> tuple[str, str]:
    """Read name and text of `--schedule NAME|FILE`; raises `ScheduleError` before anything else is done.

    For the demo a recipe that says nothing of its length is a short one.
    """
    path = Path(given)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        content = load(path)
        named = content.name if content.name not in (None, "custom") else path.stem
        # As `name` in a file may be.
        name = re.sub(r"[^A-Za-z0-9.-]", "-", str(named))[:64].strip(".-") or "custom"
    else:
        content, name = read_shipped(given), given
    if demo and isinstance(content, Recipe):
        short = {"epochs": DEMO_EPOCHS, "iterations_per_epoch": DEMO_ITERATIONS}
        content = content.model_copy(update={k: v for k, v in short.items() if k not in content.model_fields_set})
    return name, dump(content)


def make_schedule(wanted: Wanted, facts: PlanFacts) -> Schedule:
    """Resolve the requested schedule and check it against these plans.

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
        changes["name"] = content.name or wanted.schedule_name
        schedule = resolve(_later(content.model_copy(update=changes), wanted, facts), facts)
    else:
        fixed = [key for key in ("epochs", "batch_size") if key in changes]
        if fixed:
            raise ScheduleError(
                f"the schedule's stages are explicit: --{fixed[0].replace('_', '-')} cannot change them",
                wanted.schedule_name,
                "edit the file, or use a recipe",
            )
        schedule = _without_first(content.model_copy(update=changes), wanted)
    check(schedule, facts, wanted.schedule_name)
    return schedule


def _later(recipe: Recipe, wanted: Wanted, facts: PlanFacts) -> Recipe:
    """Return the recipe without its first stages; the other stages share its epochs."""
    if (patch := _start_patch(wanted)) is not None:
        return recipe.model_copy(update={"start": patch})
    if wanted.from_stage in (None, 1):
        return recipe
    # More epochs than stages; the stages of `auto` depend on the number of epochs.
    epochs = recipe.epochs if recipe.mode == "auto" else max(recipe.epochs, _ENOUGH_EPOCHS)
    stages = resolve(recipe.model_copy(update={"epochs": epochs}), facts).stages
    first = stages[_index(wanted, stages)]
    if isinstance(recipe.start, tuple):
        return recipe.model_copy(update={"start": first.patch_size})
    # A share, so that an axis rule which counts from the first patch gives the same patches from here on.
    return recipe.model_copy(update={"start": first.voxels / stages[-1].voxels * (1 - 1e-9)})


def _without_first(schedule: Schedule, wanted: Wanted) -> Schedule:
    """Return explicit stages without the first ones and their epochs."""
    if (patch := _start_patch(wanted)) is not None:
        sizes = [stage.patch_size for stage in schedule.stages]
        if patch not in sizes:
            listed = ", ".join(dict.fromkeys(",".join(map(str, size)) for size in sizes))
            raise ScheduleError("the schedule has no stage with this patch", "--start-patch", f"its patches: {listed}")
        index = sizes.index(patch)
    else:
        index = _index(wanted, schedule.stages)
    if index == 0:
        return schedule
    # What had been decided of a schedule that was planned while it trained counted from its first stage.
    return schedule.changed(stages=[stage.model_dump() for stage in schedule.stages[index:]], decayed=None)


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


def _index(wanted: Wanted, stages: Sequence[Stage]) -> int:
    """Return the index of `--from-stage`; raises `ScheduleError` if there is no such stage."""
    if (number := wanted.from_stage or 1) > len(stages):
        have = counted(len(stages), "stage")
        raise ScheduleError(f"the schedule has {have}", "--from-stage", f"give a number from 1 to {len(stages)}")
    return number - 1


def read_mirroring(given: str | None) -> object:
    """Parse `--mirroring on|off|AXES`; raises `ScheduleError`."""
    try:
        return parse_mirroring(given)
    except ValueError as problem:
        raise ScheduleError(f"'{given}': {problem}", "--mirroring", "use on, off, or axes such as 0,1") from None
