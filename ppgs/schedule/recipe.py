"""Recipes: the papers' modes as data, resolved against plans into explicit stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ppgs import upstream
from ppgs.errors import Problems, ScheduleError
from ppgs.formatting import counted
from ppgs.schedule.auto import first_share
from ppgs.schedule.growth import Growth, Patch, grow
from ppgs.schedule.model import (
    Frozen,
    LearningRate,
    Mirroring,
    PatchSize,
    PlanFacts,
    Positive,
    Schedule,
    Stage,
    Validation,
    parse_mirroring,
)
from ppgs.schedule.pacing import Pacing, Power, pace, pace_with_last

Mode = Literal["efficiency", "performance", "constant", "random", "pgps-2024", "pgps-plus-2024", "auto"]


def _constant_batch(patches: Sequence[Patch], batch: int) -> list[int]:
    return [batch] * len(patches)


def _fill_batch(patches: Sequence[Patch], batch: int) -> list[int]:
    """Return floor(B prod(P) / prod(patch)): as many voxels per batch as the plan's (2510.23241, Performance)."""
    final = math.prod(patches[-1])
    return [batch * final // math.prod(p) for p in patches]


def _chain_batch(patches: Sequence[Patch], batch: int) -> list[int]:
    """Return batches from the last stage back: floor(voxel ratio x next batch), never below B (2407.07853, PGPS+)."""
    batches = [batch]
    for patch, following in reversed(list(itertools.pairwise(patches))):
        batches.append(max(batch, math.prod(following) * batches[-1] // math.prod(patch)))
    return batches[::-1]


@dataclass(frozen=True)
class ModeRules:
    """Rules of a mode: growth (None: no growth), batch, crops and foreground share."""

    growth: Growth | None
    batch: Callable[[Sequence[Patch], int], list[int]] = _constant_batch
    foreground_share: float = 0.5
    many_crops: bool = False
    random: bool = False
    summary: str = ""


MODES: dict[Mode, ModeRules] = {
    "efficiency": ModeRules("2025", summary="grow the patch, keep the batch: baseline Dice in the least time"),
    "performance": ModeRules(
        "2025", _fill_batch, many_crops=True, summary="grow the patch, fill the batch: better Dice in less time"
    ),
    # nnU-Net's share of samples that must show foreground, before it becomes whole samples of a batch.
    "constant": ModeRules(
        None, foreground_share=upstream.FOREGROUND_SHARE, summary="plain nnU-Net: the plan's patch throughout"
    ),
    "random": ModeRules("2024", random=True, summary="a new random patch size every iteration (2024's ablation)"),
    "pgps-2024": ModeRules("2024", summary="the 2024 paper's curriculum"),
    "pgps-plus-2024": ModeRules("2024", _chain_batch, summary="the 2024 paper's curriculum with growing batches"),
    "auto": ModeRules("2025", summary="as much of the curriculum as pays in a training of this length (experimental)"),
}


Share = Annotated[float, Field(gt=0, lt=1)]


def parse_start(given: object) -> object:
    """Parse `smallest`, a share between 0 and 1, or a patch as a tuple; raises ValueError for anything else."""
    if given == "smallest" or (isinstance(given, float) and 0 < given < 1):
        return given
    if isinstance(given, (list, tuple)) and 2 <= len(given) <= 3 and all(type(g) is int and g >= 1 for g in given):
        return tuple(given)
    raise ValueError("expected smallest, a share of the final volume such as 0.1, or a patch such as [64, 64, 64]")


def parse_pacing(given: object) -> object:
    """Parse `equal`, `volume` or a power; raises ValueError for anything else."""
    if given in ("equal", "volume") or isinstance(given, Power):
        return given
    if isinstance(given, dict) and set(given) == {"power"} and isinstance(given["power"], (int, float)):
        return given
    raise ValueError("expected equal, volume, or a power of the volume such as {power: 0.5}")


def _as_text(given: object) -> object:
    """Return the 2024 that YAML reads as a number as text."""
    return str(given) if type(given) is int else given


class Recipe(Frozen):
    """Rules for making a schedule from any plans. None means the mode's, the plans' or nnU-Net's default.

    `growth: axis` is the mode's own rule. `start` is the first patch: the smallest that the network can process, a
    given one, or the first of the curriculum whose volume is at least this share of the final one. `last_stage` is the
    share of the work (voxels times batch size) that the full patch gets; `pacing` shares the other epochs.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", max_length=64)] | None = None
    mode: Mode = "efficiency"
    growth: Annotated[Growth | Literal["axis"] | None, BeforeValidator(_as_text)] = None
    start: Annotated[Literal["smallest"] | float | PatchSize, BeforeValidator(parse_start)] = "smallest"
    pacing: Annotated[Pacing, BeforeValidator(parse_pacing)] = "equal"
    last_stage: Share | None = None
    epochs: Positive = upstream.EPOCHS
    iterations_per_epoch: Positive = upstream.ITERATIONS
    batch_size: Positive | None = None
    foreground_share: Annotated[float, Field(ge=0, le=1)] | None = None
    validation: Validation | None = None
    mirroring: Annotated[Mirroring, BeforeValidator(parse_mirroring)] = None
    learning_rate: LearningRate = LearningRate()

    @property
    def own_choices(self) -> dict[str, str]:
        """The keys of curriculum and learning rate that depart from the papers, each with its value in words."""
        found = {
            key: _text(value)
            for key in ("growth", "start", "pacing", "last_stage")
            if (value := getattr(self, key)) not in (type(self).model_fields[key].default, "axis")
        }
        if (rate := self.learning_rate.text) is not None:
            found["learning_rate"] = rate
        return found


def resolve(recipe: Recipe, facts: PlanFacts, *, from_stage: int = 1) -> Schedule:
    """Return the explicit schedule of a recipe for these plans.

    Stages before `from_stage` (counted from 1) are left out; the others share the epochs. Raises `ScheduleError` when
    there are fewer epochs than stages, no such stage, or for a key that has no effect or cannot be met.
    """
    rules = MODES[recipe.mode]
    check_effect(recipe)
    if recipe.mode == "auto" and recipe.learning_rate == LearningRate():
        recipe = recipe.model_copy(update={"learning_rate": LearningRate(decay="work")})
    if (problem := recipe.learning_rate.problem(recipe.epochs)) is not None:
        raise ScheduleError(problem, "learning_rate.warmup", "give more --epochs or a shorter warm-up")
    patches = _patches(recipe, rules, facts)
    batch = recipe.batch_size or facts.batch_size
    if recipe.mode == "auto":
        patches = _worth_growing(recipe, patches) if recipe.start == "smallest" else patches
        rules = MODES["constant"] if len(patches) == 1 else rules
    require_stage(from_stage, 1 if rules.random else len(patches))
    patches = patches[from_stage - 1 :]
    share = rules.foreground_share if recipe.foreground_share is None else recipe.foreground_share
    if rules.random:
        stages = [
            Stage(
                patch_size=facts.patch_size,
                batch_size=batch,
                epochs=recipe.epochs,
                foreground_share=share,
                patch_choices=tuple(patches),
            )
        ]
    else:
        if recipe.epochs < len(patches):
            raise ScheduleError(
                f"{recipe.epochs} epochs are fewer than the {len(patches)} stages of '{recipe.mode}'",
                "epochs",
                f"give at least --epochs {len(patches)}",
            )
        batches = rules.batch(patches, batch)
        epochs = _epochs(recipe, patches, batches)
        stages = [
            Stage(
                patch_size=p,
                batch_size=b,
                epochs=e,
                foreground_share=share,
                cases=batch if rules.many_crops and b > batch else None,
            )
            for p, b, e in zip(patches, batches, epochs, strict=True)
        ]
    return Schedule(
        name=recipe.name or recipe.mode,
        mode=recipe.mode,
        iterations_per_epoch=recipe.iterations_per_epoch,
        validation=recipe.validation or Validation(iterations=math.ceil(recipe.iterations_per_epoch / 5)),
        made_for=facts,
        mirroring=recipe.mirroring,
        learning_rate=recipe.learning_rate,
        stages=tuple(stages),
    )


def require_stage(number: int, stages: int) -> None:
    """Raise `ScheduleError` if `--from-stage` names a stage that there is not."""
    if number > stages:
        have = counted(stages, "stage")
        raise ScheduleError(f"the schedule has {have}", "--from-stage", f"give a number from 1 to {stages}")


def _epochs(recipe: Recipe, patches: Sequence[Patch], batches: Sequence[int]) -> list[int]:
    volumes = [math.prod(p) for p in patches]
    if recipe.last_stage is None:
        return pace(recipe.pacing, recipe.epochs, volumes)
    return pace_with_last(recipe.pacing, recipe.epochs, volumes, batches, recipe.last_stage)


def _worth_growing(recipe: Recipe, patches: list[Patch]) -> list[Patch]:
    """Return the longest end of the curriculum that `ppgs.schedule.auto` starts in a training of this length."""
    final = math.prod(patches[-1])
    for first in range(max(0, len(patches) - recipe.epochs), len(patches)):
        chosen = patches[first:]
        # The shape alone: rounding would have longer trainings start later now and then.
        shape = recipe.model_copy(update={"epochs": 1000 * len(chosen)})
        epochs = _epochs(shape, chosen, [1] * len(chosen))
        mean = sum(n * math.prod(p) for n, p in zip(epochs, chosen, strict=True)) / shape.epochs
        work = recipe.epochs * mean / final
        if math.prod(chosen[0]) >= final * first_share(work * recipe.iterations_per_epoch):
            return chosen
    return patches[-1:]


def check_effect(recipe: Recipe) -> None:
    """Raise `ScheduleError` for keys that would be ignored silently."""
    rules = MODES[recipe.mode]
    without = {"growth": recipe.growth is not None, "start": recipe.start != "smallest"} if rules.growth is None else {}
    if rules.growth is None or rules.random:
        without |= {"last_stage": recipe.last_stage is not None, "pacing": recipe.pacing != "equal"}
    for key, given in without.items():
        if given:
            value = getattr(recipe, key)
            raise ScheduleError(
                f"{key} '{_text(value)}' has no effect in mode '{recipe.mode}'", key, "drop it or choose another mode"
            )


def _patches(recipe: Recipe, rules: ModeRules, facts: PlanFacts) -> list[Patch]:
    """Return the patches of the stages, smallest first."""
    if rules.growth is None:
        return [facts.patch_size]
    growth = rules.growth if recipe.growth is None or recipe.growth == "axis" else recipe.growth
    first = recipe.start if isinstance(recipe.start, tuple) else None
    if first is not None:
        _check_start(first, facts)
    patches = grow(growth, facts.patch_size, facts.step, facts.smallest_patch, first)
    if isinstance(recipe.start, float):
        least = recipe.start * math.prod(facts.patch_size)
        return [p for p in patches if math.prod(p) >= least]
    return patches


def _check_start(first: Patch, facts: PlanFacts) -> None:
    """Raise `ScheduleError` if no network of these plans can be trained on the first patch."""
    least = facts.smallest_patch or facts.step
    if len(first) != len(facts.patch_size):
        raise ScheduleError(f"{_text(first)} has {len(first)} axes, the plan's patch {len(facts.patch_size)}", "start")
    for axis, (size, step, final, smallest) in enumerate(zip(first, facts.step, facts.patch_size, least, strict=True)):
        if size > final or size < min(smallest, final) or (size % step and size != final):
            raise ScheduleError(
                f"axis {axis} of the first patch cannot be {size}",
                "start",
                f"give a multiple of {step} from {min(smallest, final)} to {final}",
            )


def check(schedule: Schedule, facts: PlanFacts, where: object = "schedule") -> None:
    """Raise `ScheduleError` with everything that prevents this schedule from training these plans."""
    problems = Problems()
    if schedule.made_for is not None:
        difference = schedule.made_for.first_difference(facts)
        if difference is not None:
            name, theirs, ours = difference
            problems.add(
                f"the schedule was made for other plans: {name} is {_text(theirs)} there and {_text(ours)} here",
                f"{where}: made_for.{name}",
                "plan the schedule again for these plans (ppgs plan-schedule TASK -o FILE)",
            )
            problems.raise_as(ScheduleError, "")
    if isinstance(schedule.mirroring, tuple) and max(schedule.mirroring, default=0) >= len(facts.patch_size):
        axes = len(facts.patch_size)
        problems.add(f"the patch has axes 0 to {axes - 1}, not {schedule.mirroring[-1]}", f"{where}: mirroring")
    for i, stage in enumerate(schedule.stages):
        for patch in (stage.patch_size, *stage.patch_choices):
            key = f"{where}: stages.{i}.patch_size"
            if len(patch) != len(facts.patch_size):
                problems.add(f"{_text(patch)} has {len(patch)} axes, the plan's patch {len(facts.patch_size)}", key)
                continue
            for axis, (size, step, final) in enumerate(zip(patch, facts.step, facts.patch_size, strict=True)):
                if size > final:
                    problems.add(f"axis {axis}: {size} is larger than the plan's {final}", key)
                elif size % step and size != final:
                    problems.add(
                        f"axis {axis}: {size} is no multiple of the network's step {step}",
                        key,
                        f"use {max(step, size // step * step)} or {min(final, -(-size // step) * step)}",
                    )
            smallest = facts.smallest_patch
            if smallest is not None and any(size < least for size, least in zip(patch, smallest, strict=True)):
                problems.add(f"{_text(patch)} is smaller than the network's smallest patch, {_text(smallest)}", key)
    last = schedule.stages[-1].patch_size
    if last != facts.patch_size:
        problems.add(
            f"the last stage's patch is {_text(last)}, the plan's {_text(facts.patch_size)}",
            f"{where}: stages.{len(schedule.stages) - 1}.patch_size",
            "the last stage must train the plan's patch, which inference uses",
        )
    problems.raise_as(ScheduleError, "the schedule does not suit these plans")


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
