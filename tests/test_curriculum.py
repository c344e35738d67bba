"""`ppgs.Curriculum`: patch and batch size for training loops other than nnU-Net's."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import ppgs.curriculum
from ppgs import Curriculum
from ppgs.errors import BadInput, ScheduleError
from ppgs.schedule import Schedule, Stage

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "monai_unet.py"


class Cases(Dataset[Any]):
    """Cases whose voxels say where they are, with one voxel of foreground each."""

    def __init__(self, shape: tuple[int, ...] = (20, 18, 12), kind: str = "torch") -> None:
        self.shape, self.kind = shape, kind

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.arange(1, 1 + np.prod(self.shape), dtype=np.float32).reshape(1, *self.shape)
        label = np.zeros((1, *self.shape), np.int64)
        label[(0, *(s - 1 for s in self.shape))] = 1
        make = torch.from_numpy if self.kind == "torch" else np.asarray
        return {"image": make(image), "label": make(label), "case": index}


def curriculum(mode: str = "efficiency", **options: Any) -> Curriculum:
    options = {"step": 4, "epochs": 8, "iterations": 3, **options}
    return Curriculum.for_network((16, 16, 8), 2, schedule=mode, **options)


def shapes(loader: Any, epoch: int) -> set[tuple[int, ...]]:
    loader.set_epoch(epoch)
    return {tuple(batch["image"].shape) for batch in loader}


def test_the_examples_of_the_docstring_are_right() -> None:
    assert doctest.testmod(ppgs.curriculum).failed == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_patch_and_batch_size_of_the_epoch(workers: int) -> None:
    growing = curriculum("performance", seed=3)
    batches = growing.loader(DataLoader(Cases(), batch_size=1, shuffle=True, num_workers=workers))
    assert len(batches) == 3
    seen = set()
    for epoch in range(growing.epochs):
        expected = (growing.batch_size(epoch), 1, *growing.patch_size(epoch))
        assert shapes(batches, epoch) == {expected}
        seen.add(expected)
    assert len(seen) > 3


def test_a_crop_depends_on_its_key_alone() -> None:
    growing = curriculum()
    first = growing.loader(DataLoader(Cases(), batch_size=1))
    second = growing.loader(DataLoader(Cases(), batch_size=1, num_workers=2))
    for epoch in (5, 1):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        for ours, theirs in zip(first, second, strict=True):
            assert torch.equal(ours["image"], theirs["image"])
    first.set_epoch(5)
    later = [batch["image"] for batch in first]
    assert len({tuple(image[:, 0, 0, 0, 0].tolist()) for image in later}) > 1


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_image_and_label_are_cut_at_the_same_place(kind: str) -> None:
    stage = Stage(patch_size=(8, 4, 8), batch_size=4, epochs=1, foreground_share=1)
    fixed = Curriculum(Schedule(stages=(stage,), iterations_per_epoch=5))
    for batch in fixed.loader(DataLoader(Cases(kind=kind), batch_size=1)):
        # The foreground is the last voxel, which has the largest number.
        assert (batch["label"].flatten(1).argmax(1) == batch["image"].flatten(1).argmax(1)).all()
        assert batch["label"].flatten(1).sum(1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_crops_with_foreground_is_the_stages(share: float) -> None:
    stage = Stage(patch_size=(4, 4, 4), batch_size=4, epochs=1, foreground_share=share)
    fixed = Curriculum(Schedule(stages=(stage,), iterations_per_epoch=10))
    shown = [int(batch["label"].sum()) for batch in fixed.loader(DataLoader(Cases((40, 40, 40)), batch_size=1))]
    assert sum(shown) == round(40 * share)


def test_small_cases_are_padded_and_tuples_stay_tuples() -> None:
    class Pairs(Cases):
        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            return sample["image"], sample["label"]

    stage = Stage(patch_size=(8, 8, 8), batch_size=2, epochs=1)
    fixed = Curriculum(Schedule(stages=(stage,), iterations_per_epoch=2))
    for kind in ("torch", "numpy"):
        loader = fixed.loader(DataLoader(Pairs((5, 9, 8), kind), batch_size=1), keys=(0, 1), label=1)
        for image, label in loader:
            assert image.shape == label.shape == (2, 1, 8, 8, 8)
            # Three voxels are missing on the first axis: one before, two after.
            assert (image[:, :, 1:6] > 0).all() and not image[:, :, 0].any() and not image[:, :, 6:].any()


def test_a_case_is_read_once_for_all_of_its_crops() -> None:
    class Counted(Cases):
        read = 0

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.read += 1
            return super().__getitem__(index)

    def blacken(sample: dict[str, Any]) -> dict[str, Any]:
        sample["image"][:] = -1
        return sample

    for transform in (None, blacken):
        cases, growing = Counted(), curriculum("performance")
        loader = growing.loader(DataLoader(cases, batch_size=1), transform=transform)
        batch = next(iter(loader))
        assert len(batch["image"]) == growing.batch_size(0) > 2
        # The plan's batch size is 2.
        assert cases.read == 2
    # What is done to a crop in place changes no other one.
    assert (batch["image"] == -1).all()


@pytest.mark.parametrize("transformed", [False, True])
def test_crops_of_a_case_share_nothing_that_can_change(transformed: bool) -> None:
    class Noted(Cases):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return super().__getitem__(index) | {"done": []}

    def count(sample: dict[str, Any]) -> dict[str, Any]:
        sample["image"] += 1000
        sample["done"].append("count")
        return sample

    given = DataLoader(Noted(), batch_size=1, collate_fn=lambda samples: samples)
    growing = curriculum("performance")
    plain = next(iter(growing.loader(given)))
    samples = next(iter(growing.loader(given, transform=count if transformed else None)))
    if not transformed:
        for sample in samples:
            count(sample)
    assert all(torch.equal(one["image"] + 1000, other["image"]) for one, other in zip(plain, samples, strict=True))
    assert {len(sample["done"]) for sample in samples} == {1}


def test_no_label_is_needed_where_no_crop_shows_foreground() -> None:
    class Unlabelled(Cases):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"image": super().__getitem__(index)["image"]}

    stage = Stage(patch_size=(4, 4, 4), batch_size=2, epochs=1, foreground_share=0)
    fixed = Curriculum(Schedule(stages=(stage,), iterations_per_epoch=1))
    assert len(list(fixed.loader(DataLoader(Unlabelled(), batch_size=1), keys=("image",)))) == 1


@pytest.mark.parametrize(
    ("options", "kind", "where"),
    [
        ({"smallest_patch": (8, 8)}, BadInput, "smallest_patch"),
        ({"iterations": 0}, BadInput, "iterations"),
        ({"step": 0}, BadInput, "step"),
        ({"epochs": 0}, BadInput, "epochs"),
    ],
)
def test_numbers_that_make_no_curriculum(options: dict[str, Any], kind: type[BadInput], where: str) -> None:
    with pytest.raises(kind) as refused:
        curriculum(**options)
    assert refused.value.problems[0].where == where


def test_a_label_that_a_sample_has_not_is_named() -> None:
    loader = curriculum().loader(DataLoader(Cases(), batch_size=1), keys=("image",), label="seg")
    with pytest.raises(BadInput, match="'seg'") as refused:
        next(iter(loader))
    assert refused.value.problems[0].where == "label"


def test_the_transform_sees_the_crop() -> None:
    seen = []
    loader = curriculum().loader(DataLoader(Cases(), batch_size=1), transform=lambda s: seen.append(s["image"]) or s)
    next(iter(loader))
    assert {tuple(image.shape[1:]) for image in seen} == {curriculum().patch_size(0)}


def test_the_mode_random_draws_a_patch_each_iteration() -> None:
    drawn = curriculum("random", iterations=12)
    loader = drawn.loader(DataLoader(Cases(), batch_size=1))
    assert [tuple(batch["image"].shape[2:]) for batch in loader] == [drawn.patch_size(0, i) for i in range(12)]
    assert len({drawn.patch_size(0, i) for i in range(12)}) > 1


def test_what_cannot_be_wrapped_or_planned_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield Cases()[0]

    with pytest.raises(BadInput, match="decides which samples"):
        curriculum().loader(DataLoader(Stream(), batch_size=1))
    with pytest.raises(BadInput, match="decides which samples"):
        curriculum().loader(DataLoader(Cases(), batch_sampler=[[0], [1]]))
    with pytest.raises(BadInput, match="no multiple of the step"):
        Curriculum.for_network((30, 30), 2, step=4, epochs=9)
    with pytest.raises(ScheduleError, match="fewer than the"):
        Curriculum.for_network((64, 64), 2, step=4, epochs=3)
    with pytest.raises(BadInput, match="no 'scan'"):
        next(iter(curriculum().loader(DataLoader(Cases(), batch_size=1), keys=("scan",), label=None)))


def test_the_example_trains_a_monai_network() -> None:
    pytest.importorskip("monai")
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--epochs", "7", "--iterations", "1", "--workers", "0"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [lines[epoch].split()[3] for epoch in (0, 1, 6)] == ["16x16x16", "24x16x16", "32x32x32"]
    assert lines[-1].startswith("Dice lesion")
