"""Speed of a device: the time of a step, from a few measured ones.

A step costs an overhead (launching its operations) plus its arithmetic at a sustained rate. Real devices stray from
that line (caches, tile sizes), so the measured points of the same network correct it where they lie, and in between.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Point(BaseModel):
    """One measured step: floating-point operations and seconds; on CUDA also bytes allocated and reserved."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    patch: tuple[int, ...]
    batch: int
    flops: int
    seconds: float
    allocated: int | None = None
    reserved: int | None = None


class Speed(BaseModel):
    """`overhead` seconds a step and `rate` FLOP/s; `points` (of the network with this digest) correct the line."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    network: str
    overhead: float
    rate: float
    points: tuple[Point, ...] = ()

    def line(self, flops: float) -> float:
        return self.overhead + flops / self.rate

    def seconds(self, flops: float, network: str | None = None) -> float:
        """Return the seconds of a step with that many FLOPs; of the measured network unless another is named."""
        base = self.line(flops)
        if not self.points or (network is not None and network != self.network):
            return base
        known = sorted((p.flops, p.seconds / self.line(p.flops)) for p in self.points)
        if flops <= known[0][0]:
            return base * known[0][1]
        for (x0, y0), (x1, y1) in itertools.pairwise(known):
            if flops <= x1:
                share = 1.0 if x1 == x0 else math.log(flops / x0) / math.log(x1 / x0)
                return base * (y0 + share * (y1 - y0))
        return base * known[-1][1]


def fit_speed(points: Sequence[Point], network: str) -> Speed:
    """Fit the line with the smallest relative errors of the points; neither part is negative.

    Raises ValueError without points.
    """
    if not points:
        raise ValueError("no step was measured")
    # Weighted least squares of seconds = overhead + slope * flops with weights 1 / seconds**2.
    weights = [1 / p.seconds**2 for p in points]
    total = sum(weights)
    x = sum(w * p.flops for w, p in zip(weights, points, strict=True)) / total
    y = sum(w * p.seconds for w, p in zip(weights, points, strict=True)) / total
    spread = sum(w * (p.flops - x) ** 2 for w, p in zip(weights, points, strict=True))
    together = sum(w * (p.flops - x) * (p.seconds - y) for w, p in zip(weights, points, strict=True))
    slope = together / spread if spread > 0 else 0.0
    overhead = y - slope * x
    if slope <= 0 or overhead < 0:
        slope, overhead = y / x, 0.0
    return Speed(network=network, overhead=overhead, rate=1 / slope, points=tuple(points))
