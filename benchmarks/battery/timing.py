"""Seconds of work on a device: CUDA events, or the clock where it computes at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def timed(
    take: Callable[[], Any], device: str, *, warm: int = 3, least: int = 5, seconds: float = 1.0
) -> dict[str, Any]:
    """Milliseconds of a call: median, spread and number; `first_ms` is the first one, which compiles and tunes."""
    import torch

    synchronise(device)
    started = time.perf_counter()
    take()
    synchronise(device)
    first = time.perf_counter() - started
    for _ in range(warm):
        take()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < least or time.perf_counter() - begun < seconds:
        if device == "cuda":
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            ends[0].record()
            take()
            ends[1].record()
            torch.cuda.synchronize()
            times.append(float(ends[0].elapsed_time(ends[1])))
        else:
            started = time.perf_counter()
            take()
            times.append(1e3 * (time.perf_counter() - started))
    return {
        "ms": round(statistics.median(times), 4),
        "least_ms": round(min(times), 4),
        "most_ms": round(max(times), 4),
        "count": len(times),
        "first_ms": round(1e3 * first, 1),
    }
