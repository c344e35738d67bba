"""Memory of arriving batches as estimated (`ppgs.estimate.arrival`) and as the augmentation on a device takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ppgs.estimate import arrival
from ppgs.estimate.allocator import MIB, replay
from ppgs.estimate.arrival import Arrivals
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Event, Patch, peak
from ppgs.nnunet.data import crops, dataset, keys
from ppgs.nnunet.data.augmentation import Prepared, intensity, spatial
from ppgs.nnunet.data.dataset import KeyedBatches
from ppgs.nnunet.probing.record import Recorder, collector_off

from . import test_on_device as simulated


@dataclass(frozen=True)
class Kind:
    """Batches of one stage: `count` groups of `group` batches, cut from images of this size."""

    image: tuple[int, ...]
    patch: Patch
    batch: int
    group: int
    count: int = 6
    channels: int = 1
    labels: int = 3
    regions: tuple[Any, ...] = ()
    ignore: int | None = None
    # The final patch, if samples of this one are rotated otherwise.
    plan: Patch | None = None
    degrees: int = 30
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2))

    @property
    def arrivals(self) -> Arrivals:
        network = Network(
            class_name="Made.Up",
            kwargs={},
            imports=(),
            strides=self.strides,
            channels=self.channels,
            heads=len(self.regions) or self.labels - (self.ignore is not None),
            regions=bool(self.regions),
            ignore_label=self.ignore,
        )
        return Arrivals(network, self.plan or self.patch, tuple(map(float, self.image)))

    @property
    def batches(self) -> KeyedBatches:
        scales = (1 / np.cumprod(np.vstack(self.strides), axis=0))[:-1].tolist()
        given: dict[str, Any] = {"regions": list(self.regions) or None, "ignore_label": self.ignore}
        return simulated.dataset(
            self.image if len(self.patch) == 3 else (3, *self.image),
            channels=self.channels,
            labels=self.labels,
            scales=scales,
            axes=tuple(range(len(self.patch))),
            dummy_2d=self.arrivals.in_plane,
            degrees=self.degrees,
            **given,
        )


PLANE = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
KINDS = {
    "a group of small patches": Kind((60, 60, 60), (24, 24, 24), 4, 8, channels=4, labels=4),
    "one batch of large patches": Kind((97, 97, 77), (64, 64, 48), 2, 1, count=24),
    "many samples": Kind((60, 60, 60), (16, 16, 16), 200, 1, channels=2),
    "images smaller than crops": Kind((34, 49, 33), (40, 56, 40), 3, 2),
    "many labels": Kind((60, 60, 60), (32, 32, 32), 2, 4, labels=30),
    "odd sizes": Kind((60, 60, 60), (33, 30, 27), 3, 3, strides=((1, 1, 1), (3, 2, 3), (2, 2, 2))),
    "2D": Kind((250, 250), (96, 80), 6, 4, degrees=180, strides=((1, 1), (2, 2), (2, 2)), count=8),
    "narrow 2D": Kind((250, 250), (128, 64), 6, 4, degrees=15, strides=((1, 1), (2, 2), (2, 2)), count=8),
    "slices": Kind((10, 120, 120), (8, 64, 56), 2, 4, plan=(8, 128, 128), degrees=180, strides=PLANE, channels=2),
    "regions": Kind((60, 60, 60), (32, 32, 32), 2, 4, labels=4, regions=((1, 2, 3), (2, 3), (3,)), channels=2),
    "ignored": Kind((60, 60, 60), (32, 32, 32), 2, 4, labels=5, regions=((1, 2, 3), (2, 3), (3,)), ignore=4),
}


class Drawn:
    """The numbers that real batches have drawn, in the order in which the rule asks for them."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def add(self, crops: Prepared) -> None:
        groups = crops.parameters.shapes[len(crops.moved) :]
        self.counts.append(sum(len(part) for part in crops.moved))
        for group in groups[:-1]:
            # Samples, and channels of them: rows are all that is known afterwards.
            self.counts += [0, group[0][1][0] if group else 0]
        self.counts += [shape[0] for _, shape in groups[-1]]

    def __call__(self, among: int, probability: float) -> int:
        return self.counts.pop(0)


def arrived(kind: Kind) -> tuple[list[Event], Drawn, int]:
    """Return what really happens on a device: allocations, what was drawn, and bytes of the last group's samples."""
    batches, drawn, record = kind.batches, Drawn(), Recorder()
    requests = simulated.keys(kind.patch, kind.batch, kind.group * kind.count)
    held: list[Any] = []
    kept = 0
    with collector_off():
        for first in range(0, len(requests), kind.group):
            group = batches[requests[first : first + kind.group]]
            drawn.add(group[0]["crops"])
            with record:
                now = [batches.finish(batch, simulated.META) for batch in group]
            tensors = [tensor for batch in now for tensor in (batch["data"], *batch["target"])]
            kept = sum({id(s): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())
            # As on CUDA, where the group before is still trained on.
            held = now
            del now, tensors, group
        events = list(record.events)
    del held
    return events, drawn, kept  # type: ignore[return-value]


@pytest.mark.parametrize("name", KINDS)
def test_the_estimated_memory_of_arriving_batches_is_what_they_take(name: str) -> None:
    kind = KINDS[name]
    arrivals, samples = kind.arrivals, kind.batch * kind.group
    real, drawn, kept = arrived(kind)
    assert arrivals.bytes_of(kind.patch, samples) == kept
    rule = arrivals.events(kind.patch, samples, kind.count, drawn)
    assert not drawn.counts
    assert -0.02 < peak(rule) / peak(real) - 1 < 0.02
    # One segment of small blocks: the rule leaves out the transforms' parameters.
    off = replay(rule).peak_reserved - replay(real).peak_reserved
    assert -2 * MIB <= off <= 0.02 * replay(real).peak_reserved
    # The estimate expects many changed samples; where they are few, these arrivals may have had far fewer.
    assert -0.02 < peak(arrivals.events(kind.patch, samples, 3)) / peak(real) - 1 < 0.6


@pytest.mark.parametrize(
    ("name", "batch"),
    [("one batch of large patches", 15), ("slices", 64), ("narrow 2D", 260), ("regions", 2), ("odd sizes", 3)],
)
def test_the_estimated_pool_is_about_that_of_a_long_training(name: str, batch: int) -> None:
    kind = KINDS[name]
    pool = kind.arrivals.pool(kind.patch, batch, batch)
    together = pool.batch // kind.arrivals.bytes_of(kind.patch, batch)
    assert (together > 1) == (batch < 10)
    draw = np.random.default_rng(0).binomial
    trained = kind.arrivals.events(kind.patch, batch * together, 500, lambda among, share: int(draw(among, share)))
    assert -0.3 < pool.reserved / replay(trained).peak_reserved - 1 < 0.3


@pytest.mark.parametrize("name", KINDS)
def test_crops_are_as_large_as_estimated(name: str) -> None:
    kind = KINDS[name]
    found = kind.batches._pipeline.crop_size(kind.patch)
    unbounded = Arrivals(kind.arrivals.network, kind.arrivals.plan_patch)
    assert unbounded.box(kind.patch) == found


def test_groups_and_parts_are_those_of_the_augmentation() -> None:
    assert (arrival.GROUP, arrival.GROUP_VOXELS) == (keys._GROUP, keys._GROUP_VOXELS)
    assert arrival.TOGETHER_VOXELS == dataset._TOGETHER_ON_DEVICE
    assert (arrival.SCORED, arrival.PRODUCT) == (spatial._SCORED, intensity._PRODUCT)
    assert arrival.BOX_STEP == crops._BOX_STEP


def test_samples_are_drawn_as_the_augmentation_draws_them() -> None:
    kind, asked = KINDS["many samples"], list[float]()
    augmentation = kind.batches._augmentation("train", kind.patch)
    uniforms = np.random.default_rng(0).random((4000, augmentation.columns))

    def count(among: int, probability: float) -> int:
        asked.append(probability)
        return round(among * probability)

    kind.arrivals.events(kind.patch, 1000, 1, count)
    moved, _ = augmentation.movement(uniforms)
    shares = [len(moved) / len(uniforms)]
    at = augmentation._first
    for transform in augmentation._random:
        u = uniforms[:, at : at + transform.columns]
        at += transform.columns
        if isinstance(transform, spatial.Mirror):
            shares += [len(rows) / len(uniforms) for rows in transform.parameters(u)]
        else:
            rows = transform.parameters(u, kind.patch)[0]
            shares.append(len(rows) / len(uniforms) / kind.channels)
    expected = [asked[0], *(math.prod(asked[n : n + 2]) for n in range(1, len(asked) - 3, 2)), *asked[-3:]]
    assert shares == pytest.approx(expected, abs=0.03)
