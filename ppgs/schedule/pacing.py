"""Distribution of a training's epochs over its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from ppgs.schedule.model import Frozen


class Power(Frozen):
    """Epochs in proportion to the patch volume to this power: 0 is `equal`, 1 is `volume`."""

    power: Annotated[float, Field(ge=0, le=4)]

    def __str__(self) -> str:
        return f"power {self.power:g}"


Pacing = Literal["equal", "volume"] | Power


def _equal(epochs: int, volumes: Sequence[int]) -> list[int]:
    """Give each stage floor(epochs / stages) epochs, and the remainder to the last (both papers)."""
    each, rest = divmod(epochs, len(volumes))
    shares = [each] * len(volumes)
    shares[-1] += rest
    return shares


def _proportional(epochs: int, weights: Sequence[float]) -> list[int]:
    """Share epochs in proportion to the weights, at least one each; the largest remainders (later first) round up."""
    spare = epochs - len(weights)
    total = sum(weights)
    exact = [spare * w / total for w in weights]
    shares = [1 + math.floor(e) for e in exact]
    order = sorted(range(len(weights)), key=lambda i: (exact[i] - math.floor(exact[i]), i), reverse=True)
    for i in order[: epochs - sum(shares)]:
        shares[i] += 1
    return shares


def pace(rule: Pacing, epochs: int, volumes: Sequence[int]) -> list[int]:
    """Return epochs of every stage from the patch volumes in voxels; they add up to `epochs`, each at least one.

    `equal` is both papers' rule; `volume` (in proportion to the patch volume) was tried in 2510.23241. Raises
    ValueError when there are fewer epochs than stages.
    """
    if epochs < len(volumes):
        raise ValueError(f"{epochs} epochs cannot be shared among {len(volumes)} stages")
    if rule == "equal":
        return _equal(epochs, volumes)
    power = rule.power if isinstance(rule, Power) else 1
    # Relative to the largest, so that no power overflows.
    return _proportional(epochs, [(v / max(volumes)) ** power for v in volumes] if power != 1 else volumes)


def pace_with_last(
    rule: Pacing, epochs: int, volumes: Sequence[int], batches: Sequence[int], last_stage: float
) -> list[int]:
    """Pace with as many epochs in the last stage as bring its share of the work closest to `last_stage`.

    The work of an epoch is in proportion to voxels times batch size. The other stages share the epochs that are left
    by `rule`. Raises ValueError when there are fewer epochs than stages.
    """
    others = len(volumes) - 1
    if epochs <= others or not others:
        return pace(rule, epochs, volumes)
    work = [v * b for v, b in zip(volumes, batches, strict=True)]

    def shared(last: int) -> list[int]:
        return [*pace(rule, epochs - last, volumes[:-1]), last]

    def share(last: int) -> float:
        done = [n * w for n, w in zip(shared(last), work, strict=True)]
        return done[-1] / sum(done)

    # The share rises with the number of epochs: find the first that reaches it, then look which neighbour is closer.
    low, high = 1, epochs - others
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if share(middle) < last_stage else (low, middle)
    return shared(min({max(1, low - 1), low}, key=lambda last: (abs(share(last) - last_stage), last)))
