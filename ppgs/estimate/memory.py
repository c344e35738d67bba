"""Memory of a training step on a GPU, in bytes: live, floor, expected, and whether that fits a card."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from ppgs.estimate.allocator import floor, replay
from ppgs.estimate.arrival import Pool
from ppgs.estimate.scaling import Law, Patch
from ppgs.estimate.scaling import peak as live_peak

GIB = 1 << 30


class Verdict(StrEnum):
    """`TRY`: the step can run, but the estimate is not sure enough to promise it."""

    FITS = "fits"
    TRY = "try"
    NOT = "does not fit"


@dataclass(frozen=True)
class Surroundings:
    """Memory of a process on a GPU beyond its tensors.

    `context` is the CUDA context with its libraries, in bytes. `workspace` is what a convolution asks for while it
    runs, in bytes a byte of its feature maps: with 1 the default plans come out as published by nnU-Net's authors
    (7.7 GB default, 9.1 GB ResEnc M, in `nvidia-smi` on an A100). `margin` is by how much the real figure may
    exceed the expected one; calibration narrows it.
    """

    context: int = GIB // 2
    workspace: float = 1.0
    margin: float = 1.15


class Memory:
    """Bytes of one training step on the GPU.

    `live`: peak of live tensors (parameters, gradients, momentum, activations, temporaries, the batch). `floor`: the
    least with which it runs at all, with the allocator's rounding and fragmentation and the context. `expected`: what
    `nvidia-smi` would show, with cuDNN's workspace.
    """

    def __init__(self, live: int, floor: int | Callable[[], int], expected: int) -> None:
        """`floor` may be a function: finding it takes several replays, and most stages never need it."""
        self.live, self.expected = live, expected
        self._floor = floor

    @cached_property
    def floor(self) -> int:
        return self._floor if isinstance(self._floor, int) else self._floor()

    def verdict(self, limit: int | None, surroundings: Surroundings) -> Verdict:
        if limit is None or self.expected * surroundings.margin <= limit:
            return Verdict.FITS
        return Verdict.TRY if self.floor <= limit else Verdict.NOT


def step_memory(
    law: Law, patch: Patch, batch: int, surroundings: Surroundings, *, held_gradients: int = 0, exact_floor: bool = True
) -> Memory:
    """Estimate a step at this patch (voxels, z y x) and batch; `held_gradients` bytes exist when it starts.

    `exact_floor` finds the floor by replaying under smaller and smaller budgets; without it the floor is that of an
    allocator without fragmentation, which is a little lower.
    """
    events = law.events(patch, batch)
    expected = replay(events, workspace=surroundings.workspace).peak_reserved
    more = held_gradients + surroundings.context

    def least() -> int:
        return more + (floor(events) if exact_floor else replay(events).peak_used)

    return Memory(live_peak(events) + held_gradients, least, expected + more)


def with_arrivals(step: Memory, pool: Pool, own: int, weights: int, context: int) -> Memory:
    """Return the memory of a step whose batches arrive on a second stream, which no block of the step's pool serves.

    `own` bytes of data and targets are counted in the step; `weights` bytes (with momentum) are all that exists beside
    an arrival: the host launches it when the step before is launched. Where memory is short, PyTorch takes from either
    pool what the other does not use, so `floor` holds the larger of the two; `expected` holds both.
    """
    more = pool.batch - own
    return Memory(
        max(step.live + more, weights + pool.peak),
        lambda: max(step.floor + more, context + weights + pool.peak),
        step.expected - own + pool.reserved,
    )


def inference_memory(
    law: Law, patch: Patch, image: tuple[float, ...], heads: int, channels: int, surroundings: Surroundings
) -> int:
    """Return the bytes of sliding-window inference of one image on the GPU: the forward pass and the image's logits.

    The image (voxels, z y x) is padded to the patch; its data are float32, logits and their counts half precision.
    nnU-Net keeps the logits on the CPU where they do not fit, so this is no condition for training.
    """
    window = replay(law.events(patch, 1), workspace=surroundings.workspace).peak_reserved
    voxels = math.prod(max(math.ceil(i), p) for i, p in zip(image, patch, strict=True))
    return int(window + voxels * (4 * channels + 2 * heads + 2) + surroundings.context)
