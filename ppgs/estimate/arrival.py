"""Memory of batches that arrive on CUDA beside the training step (`ppgs.nnunet.trainer.ahead`).

They are copied and augmented on a second stream. PyTorch's allocator keeps a separate pool for each stream, so the step
cannot use this memory. How much the pool grows depends on the order in which blocks of many sizes are taken. So the
rule is no single product but the list of these blocks, as `ppgs.nnunet.data.augmentation` takes them when many samples
are changed, replayed through the model of the allocator. `tests/nnunet/data/test_arrival_memory.py` compares it with
the real code: with the same numbers of samples the peaks differ by less than 2 %. Left out are the transforms'
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ppgs import upstream
from ppgs.estimate.allocator import replay
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Event, Patch, peak

# Batches made together, voxels of a group, and voxels of crops resampled together (`ppgs.nnunet.data`).
GROUP, GROUP_VOXELS, TOGETHER_VOXELS = 32, 2**21, 2**22
# Values of label indicators, and of a blur's products, made at a time (`ppgs.nnunet.data.augmentation`).
SCORED, PRODUCT = 2**25, 2**26
# Crops' sides are multiples of this where the image is smaller than the crop (`ppgs.nnunet.data.crops`).
BOX_STEP = 8
# Standard deviations above the mean: of some hundred arrivals, the one with the most changed samples.
_DEVIATIONS = 3
# How much more the pool of a long training takes than that of equal groups: numbers of changed samples vary, and leave
# pieces in which nothing fits.
_PIECES = 1.3
# Share of samples that are rotated, scaled, or both.
_MOVED = 1 - (1 - 0.2) * (1 - 0.2)
# Radius in voxels of the widest Gaussian kernel: 6 deviations from end to end, of at most 1.
_BLUR_RADIUS = 3
# `nnUNetTrainer.get_training_transforms`: (transform, probability of a sample, and of each of its channels).
_INTENSITIES = (
    ("noise", 0.1, 1.0),
    ("blur", 0.2, 0.5),
    ("brightness", 0.15, 1.0),
    ("contrast", 0.15, 1.0),
    ("low resolution", 0.25, 0.5),
    ("gamma", 0.1, 1.0),
    ("gamma", 0.3, 1.0),
)
Count = Callable[[int, float], int]


def most(among: int, probability: float) -> int:
    """Return how many of `among` samples are changed where many are: some standard deviations above the mean."""
    mean = among * probability
    return min(among, math.ceil(mean + _DEVIATIONS * math.sqrt(mean * (1 - probability))))


@dataclass(frozen=True)
class Pool:
    """Bytes of arriving batches.

    `batch`: data and targets of the whole group, which exist as long as one of its batches. `peak`: the most live bytes
    while a group arrives, its own included. `reserved`: what the pool grows to in a training, with the group
    before, which is still trained on.
    """

    batch: int
    peak: int
    reserved: int


@dataclass(frozen=True)
class Arrivals:
    """Arrival of the batches of one network and plan.

    `plan_patch` (voxels, z y x or y x) decides how samples are rotated; `image` is the median image's size, which
    bounds their crops (None: unknown, no bound). Without `augmented` batches are only copied, as with nnU-Net's
    augmentation and in cascades.
    """

    network: Network
    plan_patch: Patch
    image: tuple[float, ...] | None = None
    augmented: bool = True

    def bytes_of(self, patch: Patch, samples: int) -> int:
        """Return the bytes of data (float32) and all targets (int16 labels, or bool regions) of as many samples."""
        return samples * (4 * self.network.channels * math.prod(patch) + sum(self.targets(patch)))

    def pool(self, patch: Patch, batch: int, held: int) -> Pool:
        """Return the pool of a stage with batches of this size, of which a process has `held` samples."""
        together = min(GROUP, max(1, GROUP_VOXELS // (batch * math.prod(patch)))) if self.augmented else 1
        samples = held * together
        events = self.events(patch, samples, 3)
        whole = self.bytes_of(patch, samples)
        reserved = replay(events).peak_reserved * (_PIECES if together > 1 else 1)
        return Pool(whole, peak(events) - whole, int(reserved))

    def events(self, patch: Patch, samples: int, arrivals: int, count: Count = most) -> list[Event]:
        """Return the allocations of groups of as many samples that arrive each while the one before is still held.

        `count(among, probability)` says how many samples, or channels of them, a transform changes.
        """
        blocks, before = _Blocks(), tuple[int, ...]()
        for _ in range(arrivals):
            now = _Arrival(self, patch, samples, blocks, count).run()
            blocks.give(*before)
            before = now
        return blocks.events

    @property
    def in_plane(self) -> bool:
        """True if nnU-Net rotates slice by slice (dummy 2D)."""
        return len(self.plan_patch) == 3 and max(self.plan_patch) / self.plan_patch[0] > upstream.ANISOTROPY

    def box(self, patch: Patch) -> Patch:
        """Return the size in voxels of the crop that a moved sample is taken from (`Pipeline.crop_size`, `box`)."""
        narrow = len(patch) == 2 and max(self.plan_patch) / min(self.plan_patch) > 1.5
        angle = math.radians(15 if narrow else 30 if len(patch) == 3 and not self.in_plane else 90)
        whole = _rotated(patch, angle)
        if self.in_plane:
            whole = (patch[0], *whole[1:])
        if self.image is None:
            return whole
        sides = zip(whole, self.image[-len(whole) :], strict=True)
        found = tuple(min(side, math.ceil(image / BOX_STEP) * BOX_STEP) for side, image in sides)
        return (patch[0], *found[1:]) if self.in_plane else found

    def targets(self, patch: Patch) -> list[int]:
        """Return bytes a sample of the target of each output of deep supervision, largest first."""
        found, voxels = [], math.prod(patch)
        for strides in self.network.strides[: max(1, len(self.network.strides) - 1)]:
            voxels //= math.prod(strides)
            found.append(self.target_bytes * voxels)
        return found

    @property
    def target_bytes(self) -> int:
        """Bytes of the target of a voxel."""
        return self.network.heads + (self.network.ignore_label is not None) if self.network.regions else 2

    @property
    def labels(self) -> int:
        """Labels with padding, background and what is ignored; of regions it is assumed that each adds one label."""
        return 1 + self.network.heads + self.network.regions + (self.network.ignore_label is not None)


def _rotated(patch: Patch, angle: float) -> Patch:
    """Return the box of a patch whose corner is turned about any one axis and scaled (`get_patch_size`)."""
    sides = [float(side) for side in patch]
    sine, cosine = math.sin(angle), math.cos(angle)
    # Axes of each turn, and the first of them towards the second.
    for a, b in ((0, 1), (1, 2), (2, 0))[: 1 if len(patch) == 2 else 3]:
        sides[a] = max(sides[a], patch[a] * cosine + patch[b] * sine)
        sides[b] = max(sides[b], abs(patch[b] * cosine - patch[a] * sine))
    return tuple(int(side / min(upstream.SCALE_RANGE)) for side in sides)


class _Blocks:
    """Allocations and releases in order, as `ppgs.estimate.scaling.Event`s."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._taken = 0

    def take(self, size: float) -> int:
        self.events.append(("+", int(size)))
        self._taken += 1
        return self._taken - 1

    def give(self, *blocks: int) -> None:
        self.events += [("-", block) for block in blocks]

    def pass_by(self, *sizes: float) -> None:
        """Take blocks one after the other, and release all."""
        self.give(*[self.take(size) for size in sizes])


class _Arrival:
    """Blocks of one group's arrival; sizes are those of `BatchAugmentation.on`, in its order."""

    def __init__(self, given: Arrivals, patch: Patch, samples: int, blocks: _Blocks, count: Count) -> None:
        self._given, self._patch, self._samples, self._count = given, patch, samples, count
        self._take, self._give, self._pass_by = blocks.take, blocks.give, blocks.pass_by
        self._channels, self._voxels = given.network.channels, math.prod(patch)

    def run(self) -> tuple[int, ...]:
        """Return the blocks that stay: data and targets."""
        n, c, v = self._samples, self._channels, self._voxels
        image, target = self._take(4 * n * c * v), self._take(2 * n * v)
        crops = self._augment() if self._given.augmented else []
        if self._given.network.regions:
            labels, members = target, [self._take(n * v) for _ in range(self._given.target_bytes)]
            target = self._take(n * v * self._given.target_bytes)
            self._give(*members, labels)
        smaller = [self._take(n * size) for size in self._given.targets(self._patch)[1:]]
        self._give(*crops)
        return image, target, *smaller

    def _augment(self) -> list[int]:
        """Take and release the blocks of all transforms; return those of the crops, which are released last."""
        n, v = self._samples, self._voxels
        box = math.prod(self._given.box(self._patch))
        moved, at_once = self._count(n, _MOVED), -(-TOGETHER_VOXELS // box)
        parts = [min(at_once, moved - first) for first in range(0, moved, at_once)]
        crops = [self._take(4 * self._channels * part * box) for part in parts]
        crops += [self._take(2 * part * box) for part in parts]
        for part in parts:
            self._move(part, box)
        for name, sample, channel in _INTENSITIES:
            rows = self._count(self._count(n, sample) * self._channels, channel)
            if rows:
                self._change(name, rows)
        for _ in self._patch:
            flipped = self._count(n, 0.5)
            self._pass_by(*(4 * flipped * self._channels * v,) * 2)
            self._pass_by(*(2 * flipped * v,) * 2)
        return crops

    def _move(self, part: int, box: int) -> None:
        """Take the blocks of `Spatial.change` for as many samples."""
        labels, v = self._given.labels, part * self._voxels
        axes, plane = (2, self._patch[0]) if self._given.in_plane else (len(self._patch), 1)
        kept = [self._take(4 * axes * v / plane), self._take(4 * self._channels * v)]
        small = self._take(2 * part * box)
        kept.append(self._take(4 * part * box))
        self._give(small)
        nearest = self._take(4 * v)
        kept.append(self._take(2 * v))
        self._give(nearest)
        some = max(1, SCORED // (part * box))
        held: list[int] = []
        for first in range(0, labels, some):
            scored = min(some, labels - first)
            found, values = self._take(scored * part * box), self._take(4 * scored * part * box)
            score = self._take(4 * scored * v)
            self._give(values)
            half = self._take(2 * scored * v)
            self._give(score, *held)
            held = [found, half, self._take(2 * v), self._take(8 * v)]
            is_nearest, of_nearest = self._take(scored * v), self._take(2 * scored * v)
            self._give(is_nearest)
            held.append(self._take(2 * v))
            self._give(of_nearest)
            held.append(self._take(8 * v))
        self._pass_by(v, 2 * v, 2 * v)
        self._give(*held, *kept)

    def _change(self, name: str, rows: int) -> None:
        """Take the blocks of `Intensity.change` for as many channels of samples."""
        size = 4 * rows * self._voxels
        match name:
            case "noise":
                places = self._take(8 * self._voxels)
                state = self._take(2 * size)
                self._give(places)
                first, second = self._take(2 * size), self._take(2 * size)
                self._give(first)
                self._pass_by(2 * size, size)
                self._give(state, second)
            case "blur":
                self._blur(rows)
            case "contrast":
                self._pass_by(*(size,) * 3)
            case "gamma":
                x = self._take(size)
                for _ in range(2):
                    self._pass_by(size, size)
                self._give(x)
            case "low resolution":
                chosen, x = self._take(size), self._take(0)
                for _ in self._patch[self._given.in_plane :]:
                    below, above, mixed = (self._take(size) for _ in range(3))
                    self._give(below, above, x)
                    x = mixed
                self._give(chosen, x)
            case _:
                self._pass_by(size)

    def _blur(self, rows: int) -> None:
        widths = [2 * min(_BLUR_RADIUS, side - 1) + 1 for side in self._patch]
        at_once = max(1, PRODUCT // (max(widths) * self._voxels))
        windows: list[int] = []
        for first in range(0, rows, at_once):
            size = 4 * min(at_once, rows - first) * self._voxels
            x = self._take(size)
            self._give(*windows[1:])
            windows = windows[:1]
            for side, width in zip(self._patch, widths, strict=True):
                padded = self._take(size * (side + width - 1) / side)
                self._give(*windows)
                product, before = self._take(size * width), x
                x = self._take(size)
                self._give(product, before)
                windows = [padded]
            windows.append(x)
        self._give(*windows)
