"""Batches augmented in groups on the device that trains: as on CUDA, but with tensors of the CPU or without values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.stats import kstest

from ppgs.nnunet.data.augmentation.intensity import Noise
from ppgs.nnunet.data.augmentation.packed import Packed
from ppgs.nnunet.data.dataset import KeyedBatches, Pipeline
from ppgs.nnunet.data.keys import BatchKey
from tests.helpers.operators import Operators

CPU, META = torch.device("cpu"), torch.device("meta")
HALVES = tuple([0.5**n] * 3 for n in range(5))


class Cases:
    """Random preprocessed cases with blocks of `labels` (0 included), in nnU-Net's form."""

    def __init__(self, shape: tuple[int, ...], channels: int, labels: int) -> None:
        self.identifiers = [f"case{n}" for n in range(6)]
        self.shape, self.channels, self.labels = shape, channels, labels

    def load_case(self, name: str) -> tuple[Any, Any, None, dict[str, Any]]:
        number = int(name[-1])
        random = np.random.default_rng(number)
        # Small images, whose boxes are of several sizes.
        shape = tuple(side + number % 3 for side in self.shape)
        data = random.standard_normal((self.channels, *shape), np.float32)
        labels = np.zeros((1, *shape), np.int8)
        for label in range(1, self.labels):
            z, y, x = (slice(at := int(random.integers(0, side // 2 + 1)), at + max(1, side // 3)) for side in shape)
            labels[0, z, y, x] = label
        voxels = {label: np.argwhere(labels == label)[:200] for label in range(1, self.labels)}
        return data, labels, None, {"class_locations": voxels}


def dataset(
    shape: tuple[int, ...],
    *,
    channels: int = 1,
    labels: int = 3,
    scales: Any = HALVES[:3],
    axes: tuple[int, ...] = (0, 1, 2),
    dummy_2d: bool = False,
    degrees: int = 30,
    finished: bool = False,
    **options: Any,
) -> KeyedBatches:
    given = {"is_cascaded": False, "foreground_labels": list(range(1, labels)), "regions": None, "ignore_label": None}
    pipeline = Pipeline(
        trainer=nnUNetTrainer,
        channels=channels,
        batchwise=True,
        rotation=(-np.pi * degrees / 180, np.pi * degrees / 180),
        dummy_2d=dummy_2d,
        mirror_axes=axes,
        deep_supervision_scales=scales,
        options={**given, "use_mask_for_norm": [False] * channels, **options},
        validation_options=given,
    )
    manager: Any = SimpleNamespace(all_labels=list(range(labels)), has_ignore_label=False)
    cases = Cases(shape, channels, labels)
    return KeyedBatches(cases, cases, pipeline, manager, finished=finished)


def keys(patch: tuple[int, ...], batch: int, count: int, *, cases: int | None = None) -> tuple[BatchKey, ...]:
    return tuple(BatchKey("train", 0, 0, n, patch, batch, cases or batch, 1 / 3) for n in range(count))


FLAT: dict[str, Any] = {"scales": ([1, 1], [0.5, 0.5]), "axes": (0, 1)}
REGIONS: dict[str, Any] = {"regions": [(1, 2), (2,)], "ignore_label": 3, "labels": 4}
KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
    "3D": ((26, 30, 25), {"channels": 2}, (8, 8, 8)),
    "odd sizes": ((26, 30, 25), {"scales": ([1, 1, 1], [0.5, 0.3, 0.5])}, (9, 14, 11)),
    "2D": ((3, 40, 50), FLAT, (24, 20)),
    "dummy 2D": ((6, 40, 50), {"dummy_2d": True, "scales": HALVES[:2], **REGIONS}, (6, 16, 12)),
    "masked": ((30, 31, 32), {"channels": 2, "use_mask_for_norm": [True, False], **REGIONS}, (12, 8, 10)),
    "one slice": ((1, 40, 50), {"dummy_2d": True, "scales": ([1, 1, 1], [1, 0.5, 0.5])}, (1, 16, 16)),
}


def made(batches: KeyedBatches, *requests: tuple[BatchKey, ...], device: torch.device = CPU) -> list[dict[str, Any]]:
    return [batches.finish(batch, device) for request in requests for batch in batches[request]]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    targets = zip(a["target"], b["target"], strict=True)
    alike = a["key"] == b["key"] and a["keys"] == b["keys"]
    return alike and torch.equal(a["data"], b["data"]) and all(torch.equal(x, y) for x, y in targets)


# Batches of the smallest patches of two Decathlon tasks, and as many of them as are made together.
STAGES: dict[str, tuple[dict[str, Any], tuple[BatchKey, ...]]] = {
    "Task04": ({"shape": (36, 50, 35)}, keys((8, 8, 8), 9, 32)),
    "Task01": ({"shape": (80, 90, 85), "channels": 4, "labels": 4, "scales": HALVES}, keys((32, 32, 32), 2, 32)),
}


@pytest.mark.parametrize("task", STAGES)
@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_a_batch_of_a_group_takes_few_operators_and_copies_and_waits_for_nothing(
    task: str, device: torch.device
) -> None:
    options, group = STAGES[task]
    batches = dataset(**options)
    arrived = batches[group]
    with Operators() as watch:
        for batch in arrived:
            batches.finish(batch, device)
            assert batch["data"].device == device
    assert 0 < watch.calls <= 15 * len(group)
    assert watch.copies <= 2 * len(group)
    # Images, labels, those of what is moved, and the parameters.
    assert watch.copies == (5 if device == META else 0)
    assert not watch.waits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_a_batch_alone_waits_for_nothing(kind: str, device: torch.device) -> None:
    shape, options, patch = KINDS[kind]
    batches = dataset(shape, **options)
    arrived = [batches[(key,)][0] for key in keys(patch, 3, 6)]
    with Operators() as watch:
        for batch in arrived:
            batches.finish(batch, device)
    assert not watch.waits


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_their_group(kind: str) -> None:
    shape, options, patch = KINDS[kind]
    batches, group = dataset(shape, **options), keys(patch, 3, 12)
    together = made(batches, group)
    for others in (made(batches, *((key,) for key in group)), made(batches, group[:5], group[5:])):
        assert all(same(a, b) for a, b in zip(together, others, strict=True))
    slots = made(batches, *((replace(key, held=(slot,)),) for key in group for slot in range(3)))
    for n, sample in enumerate(slots):
        assert torch.equal(sample["data"][0], together[n // 3]["data"][n % 3])
        for alone, whole in zip(sample["target"], together[n // 3]["target"], strict=True):
            assert torch.equal(alone[0], whole[n % 3])


@pytest.mark.parametrize("kind", KINDS)
def test_but_for_noise_samples_are_those_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("__call__", "change"):
        monkeypatch.setattr(Noise, way, lambda *_: None)
    shape, options, patch = KINDS[kind]
    group = keys(patch, 3, 12)
    cpu, device = (dataset(shape, **options, finished=finished) for finished in (True, False))
    for a, b in zip(made(cpu, group), made(device, group), strict=True):
        assert torch.allclose(a["data"], b["data"], atol=1e-5)
        for ours, theirs in zip(a["target"], b["target"], strict=True):
            assert ours.dtype == theirs.dtype
            # Where two labels have equal scores, a rounding decides.
            assert (ours == theirs).float().mean() > 0.999


def test_labels_do_not_depend_on_how_many_are_scored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"labels": 30, "scales": HALVES[:1]}
    batches, group = dataset((30, 30, 30), **options), keys((12, 12, 12), 4, 4)
    at_once = made(batches, group)
    monkeypatch.setattr("ppgs.nnunet.data.augmentation.spatial._SCORED", 1)
    one_by_one = made(batches, group)
    assert max(len(batch["target"][0].unique()) for batch in at_once) > 10
    assert all(same(a, b) for a, b in zip(at_once, one_by_one, strict=True))


def test_blurred_channels_do_not_depend_on_how_many_are_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, group = dataset((26, 30, 25), channels=2), keys((8, 8, 8), 9, 4)
    at_once = made(batches, group)
    monkeypatch.setattr("ppgs.nnunet.data.augmentation.intensity._PRODUCT", 1)
    assert all(same(a, b) for a, b in zip(at_once, made(batches, group), strict=True))


def test_noise_is_normal_and_every_channels_own() -> None:
    noise = Noise(GaussianNoiseTransform((0.04, 0.04), 1, True), 1.0, 2)
    drawn = noise.parameters(np.random.default_rng(0).random((3, noise.columns)), (20, 20, 20))
    image = torch.zeros(3, 2, 20, 20, 20)
    noise.change(image, *map(torch.from_numpy, drawn))
    found = image.flatten(0, 1).flatten(1)
    for channel in found:
        assert kstest(channel.numpy() / 0.04, "norm").pvalue > 1e-3
    between = torch.corrcoef(torch.cat([found, found[:1].roll(1, 1)])) - torch.eye(7)
    assert between.abs().max() < 0.05


def test_a_group_is_augmented_once_more_where_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, group = dataset((26, 30, 25)), keys((8, 8, 8), 3, 4)
    expected, arrived = made(batches, group), batches[group]
    augmentation = batches._augmentation("train", (8, 8, 8))
    with monkeypatch.context() as patch:

        def short(*_: Any) -> None:
            raise torch.OutOfMemoryError

        patch.setattr(augmentation, "on", short)
        with pytest.raises(torch.OutOfMemoryError):
            batches.finish(arrived[0], CPU)
    assert all(same(a, batches.finish(b, CPU)) for a, b in zip(expected, arrived, strict=True))
    # What is finished stays as it is.
    assert all(same(a, batches.finish(b, CPU)) for a, b in zip(expected, arrived, strict=True))


def test_batches_of_which_another_process_has_all_samples_are_left_out_of_a_group() -> None:
    batches, group = dataset((26, 30, 25)), keys((8, 8, 8), 3, 4)
    held = tuple(replace(key, held=() if n % 2 == 0 else (1,)) for n, key in enumerate(group))
    expected, found = made(batches, group), made(batches, held)
    for n, (whole, part) in enumerate(zip(expected, found, strict=True)):
        assert ("data" in part) == (n % 2 == 1)
        if n % 2:
            assert torch.equal(part["data"][0], whole["data"][1])


@pytest.mark.parametrize("floats", [0, 3, 4])
def test_packed_arrays_are_unpacked_as_they_were(floats: int) -> None:
    random = np.random.default_rng(0)
    groups: Any = [
        [np.arange(3), random.random((floats, 1, 2)).astype(np.float32)],
        [],
        [random.random(5).astype(np.float32), np.arange(6).reshape(2, 3) - 2**40, np.empty(0, np.int64)],
    ]
    found = Packed.of(groups).unpacked()
    for ours, theirs in zip(found, groups, strict=True):
        assert len(ours) == len(theirs)
        assert all(
            np.array_equal(a.numpy(), b) and a.numpy().dtype == b.dtype for a, b in zip(ours, theirs, strict=True)
        )
    with pytest.raises(TypeError, match="float64"):
        Packed.of([[np.ones(1)]])  # type: ignore[list-item]


def test_a_case_is_read_once_where_a_batch_shows_more_voxels_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = dataset((26, 30, 25), channels=2)
    read: list[str] = []

    class OnDisk:
        """An array that is read by slices."""

        def __init__(self, array: Any, name: str) -> None:
            self.array, self.name, self.shape, self.dtype = array, name, array.shape, array.dtype

        def __getitem__(self, places: Any) -> Any:
            read.append(self.name)
            return self.array[places]

    cases = batches._cases["train"]
    for name in cases.identifiers:
        case = cases[name]
        cases._held[name] = replace(case, data=OnDisk(case.data, name), labels=case.labels)
    few, many = keys((8, 8, 8), 4, 1, cases=2)[0], keys((8, 8, 8), 128, 1, cases=2)[0]
    batches[(few,)]
    assert len(read) == 4
    read.clear()
    found = made(batches, (many,))
    assert len(read) == len(set(read)) == len(set(many.cases_of(cases.identifiers)))
    monkeypatch.setattr("ppgs.nnunet.data.dataset.in_full", lambda case: case)
    assert same(found[0], made(batches, (many,))[0])
    assert len(read) > 100
