"""How the epochs of a training are shared among its stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

Pacing = Literal["equal", "volume"]


def _equal(epochs: int, volumes: Sequence[int]) -> list[int]:
    """floor(epochs / stages) each, the remainder to the last (both papers)."""
    each, rest = divmod(epochs, len(volumes))
    shares = [each] * len(volumes)
    shares[-1] += rest
    return shares


def _volume(epochs: int, volumes: Sequence[int]) -> list[int]:
    """In proportion to the patch volume (tried in 2510.23241), one epoch at least; largest remainders, later first."""
    spare = epochs - len(volumes)
    total = sum(volumes)
    exact = [spare * v / total for v in volumes]
    shares = [1 + math.floor(e) for e in exact]
    order = sorted(range(len(volumes)), key=lambda i: (exact[i] - math.floor(exact[i]), i), reverse=True)
    for i in order[: epochs - sum(shares)]:
        shares[i] += 1
    return shares


PACING: dict[Pacing, Callable[[int, Sequence[int]], list[int]]] = {"equal": _equal, "volume": _volume}


def pace(rule: Pacing, epochs: int, volumes: Sequence[int]) -> list[int]:
    """Epochs of every stage, given the patch volumes in voxels; they add up to `epochs` and none is below one.

    Raises ValueError when there are fewer epochs than stages.
    """
    if epochs < len(volumes):
        raise ValueError(f"{epochs} epochs cannot be shared among {len(volumes)} stages")
    return PACING[rule](epochs, volumes)
