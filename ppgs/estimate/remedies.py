"""Remedies for stages that do not fit, and filling a card that has room to spare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ppgs.errors import BadInput, DoesNotFit, Problem
from ppgs.estimate.cost import Costs, Estimate
from ppgs.estimate.memory import GIB, Verdict
from ppgs.formatting import spaced
from ppgs.schedule import Schedule, Stage

_LARGEST_BATCH = 1 << 16


def gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"


def with_batch(stage: Stage, batch: int) -> Stage:
    """Return the stage with another batch size; never more cases than samples."""
    cases = None if stage.cases is None else min(stage.cases, batch)
    return stage.changed(batch_size=batch, cases=cases, accumulation=1)


def _largest_batch(stage: Stage, low: int, high: int, good: Callable[[Stage], bool]) -> int | None:
    """Return the largest good batch from `low` to `high`, assuming that memory grows with the batch, or None."""
    if not good(with_batch(stage, low)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if good(with_batch(stage, middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _candidates(stage: Stage, costs: Costs, good: Callable[[Stage], bool]) -> Iterator[tuple[Stage, str]]:
    """Yield remedies, the mildest first: the changed stage, and the change in words."""
    planned = min(costs.facts.batch_size, stage.batch_size)
    if stage.batch_size > planned:
        batch = _largest_batch(stage, planned, stage.batch_size, good)
        if batch is not None:
            yield with_batch(stage, batch), f"batch {stage.batch_size} -> {batch}"
    # From here on at the plan's batch at most.
    base = with_batch(stage, planned)
    smaller = f"batch {stage.batch_size} -> {planned}, " if planned < stage.batch_size else ""
    parts = [n for n in range(2, planned + 1) if planned % n == 0] if costs.tracer.network.accumulation_is_exact else []
    for n in parts:
        yield base.changed(accumulation=n), f"{smaller}gradient accumulation over {n} parts (same gradients)"
    yield base.changed(checkpointing=True), f"{smaller}activation checkpointing (same gradients, more arithmetic)"
    for n in parts:
        yield (
            base.changed(checkpointing=True, accumulation=n),
            f"{smaller}activation checkpointing and gradient accumulation over {n} parts",
        )
    for thrifty in (False, True):
        lean = base.changed(checkpointing=thrifty)
        batch = _largest_batch(lean, 1, planned, good)
        if batch is not None:
            also = ", activation checkpointing" if thrifty else ""
            yield with_batch(lean, batch), f"batch {stage.batch_size} -> {batch}{also} (other training)"


def fit(schedule: Schedule, costs: Costs) -> tuple[Schedule, list[str]]:
    """Return the schedule with every stage changed that may not fit, and the changes in words.

    A stage takes the mildest remedy that makes it fit, else the mildest with which it may run; if none helps, it stays
    unchanged.
    """
    stages, changes = [], []
    for i, stage in enumerate(schedule.stages):
        now = costs.verdict(stage)
        if now is Verdict.FITS:
            stages.append(stage)
            continue
        found = _remedy(stage, costs, Verdict.FITS)
        if found is None and now is Verdict.NOT:
            found = _remedy(stage, costs, Verdict.TRY)
        if found is not None:
            stage, done = found
            changes.append(f"stage {i + 1} ({spaced(stage.patch_size)}): {done}")
        stages.append(stage)
    return schedule.changed(stages=stages), changes


def _remedy(stage: Stage, costs: Costs, wanted: Verdict) -> tuple[Stage, str] | None:
    order = list(Verdict)

    def good(candidate: Stage) -> bool:
        return order.index(costs.verdict(candidate, exact_floor=wanted is not Verdict.FITS)) <= order.index(wanted)

    return next((found for found in _candidates(stage, costs, good) if good(found[0])), None)


def fill(schedule: Schedule, costs: Costs) -> tuple[Schedule, list[str]]:
    """Return Performance with every batch as large as the card allows, rather than as many voxels as the plan's.

    Raises `BadInput` if there is no limit to fill, or for another mode.
    """
    if costs.machine.limit is None:
        raise BadInput("there is no memory to fill", "--fill", "give --gpu-memory, for instance 80GiB")
    if schedule.mode != "performance":
        raise BadInput(f"mode '{schedule.mode}' keeps its batch", "--fill", "use --schedule performance")

    def good(candidate: Stage) -> bool:
        return costs.verdict(candidate, exact_floor=False) is Verdict.FITS

    stages, changes = [], []
    for i, stage in enumerate(schedule.stages):
        # More voxels than this cannot fit: activations alone take some hundred bytes a voxel.
        most = min(_LARGEST_BATCH, max(stage.batch_size, costs.machine.limit // (64 * math.prod(stage.patch_size))))
        batch = _largest_batch(stage, stage.batch_size, most, good)
        if batch is not None and batch > stage.batch_size:
            changes.append(f"stage {i + 1} ({spaced(stage.patch_size)}): batch {stage.batch_size} -> {batch}")
            stage = with_batch(stage, batch)
        stages.append(stage)
    return schedule.changed(stages=stages), changes


def refusal(estimate: Estimate, costs: Costs) -> DoesNotFit:
    """Return the error for a schedule that does not fit: the stages, the excess, and the remedies in order."""
    limit = estimate.machine.limit or 0
    beyond = [(i, s) for i, s in enumerate(estimate.stages) if s.verdict is Verdict.NOT]
    problems = [
        Problem(
            f"stage {i + 1} needs at least {gib(s.memory.floor)}, {gib(s.memory.floor - limit)} more than there is",
            f"patch {spaced(s.stage.patch_size)}, batch {s.stage.batch_size}, expected {gib(s.memory.expected)}",
        )
        for i, s in beyond
    ]
    index, worst = max(beyond, key=lambda pair: pair[1].memory.floor)
    problems.append(Problem(f"remedies for stage {index + 1}, in order", "", "; ".join(_offers(worst.stage, costs))))
    name = f" ({estimate.machine.name})" if estimate.machine.name else ""
    return DoesNotFit(f"{len(beyond)} of {len(estimate.stages)} stages exceed {gib(limit)}{name}", problems=problems)


def _offers(stage: Stage, costs: Costs) -> list[str]:
    """Return each kind of remedy with the memory that it leads to."""
    offers = []
    planned = min(costs.facts.batch_size, stage.batch_size)

    def offer(candidate: Stage, words: str) -> None:
        offers.append(f"{words}: {gib(costs.memory(candidate).expected)} ({costs.verdict(candidate)})")

    for batch in sorted({planned, 1}, reverse=True):
        if batch < stage.batch_size:
            offer(with_batch(stage, batch), f"batch {batch}")
    if planned > 1 and costs.tracer.network.accumulation_is_exact:
        offer(with_batch(stage, planned).changed(accumulation=planned), f"gradient accumulation over {planned} parts")
    offer(with_batch(stage, planned).changed(checkpointing=True), "activation checkpointing")
    offers.append("--fit applies the first that helps")
    offers.append(
        "or a smaller plan: nnUNetv2_plan_experiment -d ID -gpu_memory_target GB -overwrite_plans_name NAME, "
        "then --plans NAME"
    )
    return offers
