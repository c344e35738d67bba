"""Measurement of real steps: seconds, power, and on CUDA the memory reserved."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ppgs.errors import DoesNotFit
from ppgs.estimate.cards import host_name
from ppgs.formatting import patch_text
from ppgs.nnunet.host.devices import seconds_of, set_threads
from ppgs.nnunet.host.out_of_memory import is_out_of_memory
from ppgs.nnunet.probing.step import Step

# Seconds of compiling per second of the budget.
_COMPILING = 5
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def device_name(device: torch.device) -> str:
    """Return the name under which calibrations of this device are stored."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return host_name(device.type, torch.get_num_threads())


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Measure seconds of a training step at several points, within a budget of seconds.

    `request`: facts, mixed, device, budget (seconds), points (patch, batch; smallest work first); `clock` may be `cpu`
    for the CPU seconds of one thread, which a shared machine disturbs less. All points that the budget allows are
    visited once, small to large, then again in turn, so that a disturbance of the machine does not fall on one of them
    alone; a point's figure is the mean, since an epoch is a sum. The largest point reached also takes validation steps.
    On CUDA the network is compiled, as in a training. Its seconds are not the budget's, but no point is started once
    they are `_COMPILING` times as many.
    """
    device = torch.device(request["device"])
    # As in a training.
    set_threads(device)
    if request.get("clock") == "cpu":
        torch.set_num_threads(1)
    budget = float(request["budget"])
    clock = time.process_time if request.get("clock") == "cpu" else time.perf_counter
    step = Step(request["facts"], request["device"], mixed=request["mixed"], trained=True)
    step.compile()
    begun, compiling = time.perf_counter(), 0.0
    meter = _Energy(device)
    seconds: dict[int, list[float]] = {}
    memory: dict[int, dict[str, int]] = {}
    points = [(tuple(p), int(b)) for p, b in request["points"]]
    taken: list[tuple[int, float]] = []
    for i, (patch, batch) in enumerate(points):
        work = math.prod(patch) * batch
        # Warm-up, a timed step, and as much again for the second turn and the validation.
        spent = time.perf_counter() - begun - compiling
        if taken and (3 * expected_seconds(taken, work) > budget - spent or compiling > _COMPILING * budget):
            break
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            first = time.perf_counter()
            step.train(patch, batch)
            if device.type == "cuda":
                compiling += time.perf_counter() - first
                for _ in range(4):
                    step.train(patch, batch)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds[i] = [_timed(step.train, patch, batch, device, clock)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if not taken:
                remedy = "end other programs that use it, or set CUDA_VISIBLE_DEVICES to another GPU"
                what = f"a step at {patch_text(patch)} with batch {batch} does not fit"
                raise DoesNotFit(what, device, remedy) from None
            break
        if device.type == "cuda":
            memory[i] = {
                "allocated": torch.cuda.max_memory_allocated(device),
                "reserved": torch.cuda.max_memory_reserved(device),
            }
        taken.append((work, seconds[i][0]))
    context = _context(device)
    largest = max(seconds)
    first = time.perf_counter()
    step.validate(*points[largest])
    if device.type == "cuda":
        compiling += time.perf_counter() - first
    validation = [_timed(step.validate, *points[largest], device, clock)]
    meter.start()
    while True:
        left = budget - (time.perf_counter() - begun - compiling)
        affordable = [i for i in seconds if seconds[i][0] < left / 2]
        if not affordable or min(len(seconds[i]) for i in affordable) >= 20:
            break
        i = min(affordable, key=lambda j: len(seconds[j]))
        # Release caches and buffers of the previous patch size.
        step.train(*points[i])
        seconds[i].append(_timed(step.train, *points[i], device, clock))
        # Every epoch validates at the largest patch: its time counts in all of them.
        if len(validation) < len(seconds[largest]) and validation[0] < left / 4:
            validation.append(_timed(step.validate, *points[largest], device, clock))
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "watts": meter.watts(),
        "context": context,
        "points": [
            {"patch": points[i][0], "batch": points[i][1], "seconds": statistics.mean(s), **memory.get(i, {})}
            for i, s in seconds.items()
        ],
        "validation": {
            "patch": points[largest][0],
            "batch": points[largest][1],
            "seconds": statistics.mean(validation),
        },
    }


def expected_seconds(taken: list[tuple[int, float]], work: int) -> float:
    """Extrapolate the seconds of a step to more work (voxels of the batch) from steps given as (work, seconds).

    The line through the last two; nothing is expected before there are two, since the first is mostly overhead.
    """
    if len(taken) < 2:
        return 0.0
    (less, quick), (more, slow) = taken[-2:]
    slope = max(slow - quick, 0.0) / (more - less) if more > less else 0.0
    return slow + slope * max(work - more, 0)


def _timed(take: Any, patch: Any, batch: int, device: torch.device, clock: Callable[[], float]) -> float:
    """Measure one step."""
    return seconds_of(lambda: take(patch, batch), device, clock)


def _context(device: torch.device) -> int | None:
    """Return the bytes that this process uses on the GPU beyond PyTorch's reserved memory."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    used = total - free - torch.cuda.memory_reserved(device)
    return int(used) if 0 < used < 2 << 30 else None


class _Energy:
    """Mean power since `start` in watts if the machine can measure it: NVML for CUDA, RAPL for an Intel CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._joules = 0.0
        self._begun = 0.0

    def _read(self) -> float | None:
        if self._device.type == "cuda":
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                # Its indices ignore CUDA_VISIBLE_DEVICES.
                uuid = torch.cuda.get_device_properties(self._device).uuid
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            return None
        with contextlib.suppress(OSError, ValueError):
            return int(_RAPL.read_text(encoding="ascii")) / 1e6
        return None

    def start(self) -> None:
        self._begun, self._joules = time.perf_counter(), self._read() or 0.0

    def watts(self) -> float | None:
        joules, seconds = self._read(), time.perf_counter() - self._begun
        if joules is None or seconds < 1 or joules <= self._joules:
            return None
        return (joules - self._joules) / seconds
