"""Planning of a schedule while it trains: as many epochs as fit into a given time.

The rule, all of it:

1. `in_parts` cuts the last stage into stages of the same patch and batch, each a third of what is left, so that a
   machine that becomes 2.5 times as slow during one of them leaves enough time to correct it. The last two are equal,
   and the last decision is made shortly before the end. A schedule of one stage also begins with a sixteenth.
2. Before a stage begins, `planned` scales the epochs of all stages to come by one factor, so that they take the time
   that is left, and settles the stage: its epochs and its share of the learning rate's decay are final.
3. The decay that is left is shared out among the stages to come, over epochs or work as the schedule says. The learning
   rate has no jump where the plan changes, and is zero at the end of every plan.

Past stages are never touched: a schedule agrees with every version that it is planned from on all epochs before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ppgs import upstream
from ppgs.schedule.model import Schedule, Stage

# Shares of the last stage: six times a third of what is left, and the rest in two.
_LEFT = [(2 / 3) ** n for n in range(7)]
_PARTS = (*(left / 3 for left in _LEFT[:6]), _LEFT[6] / 2, _LEFT[6] / 2)
_FIRST = 1 / 16


def in_parts(schedule: Schedule) -> Schedule:
    """Return the schedule with its last stage in parts and no stage settled.

    A learning rate that restarts at every stage would restart at every part: such a schedule keeps its stages.
    """
    if schedule.learning_rate.restart_at_stage:
        return schedule.changed(decayed=())
    parts = list(_PARTS)
    if len(schedule.stages) == 1:
        parts = [_FIRST, parts[0] - _FIRST, *parts[1:]]
    *others, last = schedule.stages
    ends = [round(last.epochs * sum(parts[: i + 1])) for i in range(len(parts))]
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    cut = [last.changed(epochs=count) for count in counts if count]
    return schedule.changed(decayed=(), stages=[*others, *cut])


def planned(schedule: Schedule, seconds: Sequence[float], left: float) -> Schedule:
    """Return the schedule whose unsettled stages take about `left` seconds, the first of them settled.

    `seconds` is the time of an epoch of every stage. Every patch size keeps an epoch, even where time has run out.
    Raises ValueError where all stages are settled.
    """
    done = schedule.settled
    if done == len(schedule.stages):
        raise ValueError("all stages are settled")
    coming = schedule.stages[done:]
    counts = share_out(
        [s.epochs for s in coming], seconds[done:], left, least=[_least(coming, i) for i in range(len(coming))]
    )
    stages = [s.changed(epochs=n) for s, n in zip(coming, counts, strict=True) if n]
    return schedule.changed(stages=[*schedule.stages[:done], *stages]).with_next_settled()


def begun(schedule: Schedule, epochs: int) -> Schedule:
    """Return the schedule with so many epochs in its first stage, which is settled, to measure what the others cost.

    These share nnU-Net's number of epochs for now, so that every part keeps its proportion.
    """
    counts = share_out([s.epochs for s in schedule.stages], [1.0] * len(schedule.stages), upstream.EPOCHS)
    stages = [s.changed(epochs=n) for s, n in zip(schedule.stages, [epochs, *counts[1:]], strict=True)]
    return schedule.changed(stages=stages).with_next_settled()


def with_all_settled(schedule: Schedule) -> Schedule:
    """Return the schedule as planned, for a training that is not planned again."""
    while schedule.decayed is not None and schedule.settled < len(schedule.stages):
        schedule = schedule.with_next_settled()
    return schedule


def _least(stages: Sequence[Stage], index: int) -> int:
    """Return the least number of epochs of a stage: 0 for a part of a split stage that is not its last, else 1."""
    return 0 if index + 1 < len(stages) and stages[index].like(stages[index + 1]) else 1


def share_out(
    weights: Sequence[int], seconds: Sequence[float], left: float, least: Sequence[int] | None = None
) -> list[int]:
    """Share epochs in proportion to the weights so that they take about `left` seconds, none below `least` (1).

    Those that would get less than their least get that, and the others share what remains. Largest remainders are
    rounded up, later ones first, while that comes closer to `left`.
    """
    fixed: set[int] = set()
    least = [1] * len(weights) if least is None else least
    while True:
        free = [i for i in range(len(weights)) if i not in fixed]
        room = max(left - sum(least[i] * seconds[i] for i in fixed), 0.0)
        factor = room / sum(weights[i] * seconds[i] for i in free) if free else 0.0
        wanted = {i: factor * weights[i] for i in free}
        short = [i for i in free if wanted[i] < least[i]]
        if not short:
            break
        fixed.update(short)
    counts = [least[i] if i in fixed else max(math.floor(wanted[i]), least[i]) for i in range(len(weights))]
    total = sum(n * each for n, each in zip(counts, seconds, strict=True))
    for i in sorted(free, key=lambda i: (wanted[i] - math.floor(wanted[i]), i), reverse=True):
        if abs(total + seconds[i] - left) < abs(total - left):
            counts[i], total = counts[i] + 1, total + seconds[i]
    return counts
