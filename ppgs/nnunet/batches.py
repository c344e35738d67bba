"""Batches as pure functions of keys: one `DataLoader` serves a whole run, whatever the stage, worker or restart.

A sample is determined by `(seed, phase, epoch, iteration, slot)`: which case, which crop, which augmentation. The
sampler emits the keys of training and validation batches in the very order in which the training asks for them.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ppgs.errors import PpgsError
from ppgs.nnunet.augmentation import BatchAugmentation, Crops, translate
from ppgs.nnunet.cases import unreadable
from ppgs.nnunet.crops import COLUMNS, CaseStore, crop_origins, cut, labels_in
from ppgs.nnunet.environment import quiet_worker
from ppgs.nnunet.transforms import without_memory
from ppgs.nnunet.transport import Travelling
from ppgs.schedule import Schedule
from ppgs.schedule.shares import WHOLE, Cut

Phase = Literal["train", "validation"]
_PHASES: dict[Phase, int] = {"train": 0, "validation": 1}
# nnU-Net's share, so that the pseudo Dice of all schedules and stages means the same.
VALIDATION_FOREGROUND_SHARE = 0.33
# Range that nnU-Net passes to get_patch_size (configure_rotation_dummyDA_mirroring_and_inital_patch_size).
_SCALE_RANGE = (0.85, 1.25)
_OPEN_CASES = 32


@dataclass(frozen=True)
class BatchKey:
    """Everything that a batch depends on besides the data; patch size in voxels, axis order (z, y, x) or (y, x).

    `held` names the slots that this process trains on where several share the batch; None: all of them.
    """

    phase: Phase
    seed: int
    epoch: int
    iteration: int
    patch_size: tuple[int, ...]
    batch_size: int
    cases: int
    foreground_share: float
    held: tuple[int, ...] | None = None

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots that are made here."""
        return tuple(range(self.batch_size)) if self.held is None else self.held

    def cases_of(self, identifiers: list[str]) -> list[str]:
        """The batch's cases, drawn among all of them; the same for all who share the batch."""
        chosen = np.random.default_rng(self.seed_of(None)).choice(len(identifiers), self.cases)
        return [identifiers[c] for c in chosen]

    def seed_of(self, slot: int | None) -> np.random.SeedSequence:
        """The root of all randomness of one sample, or (None) of the choice of cases."""
        return np.random.SeedSequence(
            [self.seed, _PHASES[self.phase], self.epoch, self.iteration, 0 if slot is None else slot + 1]
        )

    def case_of(self, slot: int) -> int:
        """Which of the batch's cases a slot is cropped from: equal runs of slots a case."""
        return slot * self.cases // self.batch_size

    def is_foreground(self, slot: int) -> bool:
        """Whether the crop must show foreground: nnU-Net's rule (`_oversample_last_XX_percent`), case by case."""
        return not self.case_of(slot) < round(self.cases * (1 - self.foreground_share))


class KeySampler(Sampler[BatchKey]):
    """The keys of a whole training from a given epoch and iteration on, validation included."""

    def __init__(
        self,
        schedule: Schedule,
        seed: int,
        final_batch: int,
        *,
        epoch: int = 0,
        iteration: int = 0,
        cut: Cut = WHOLE,
    ) -> None:
        self.schedule, self.seed, self.final_batch = schedule, seed, final_batch
        self.epoch, self.iteration, self.cut = epoch, iteration, cut

    def __iter__(self) -> Iterator[BatchKey]:
        for epoch in range(self.epoch, self.schedule.epochs):
            for iteration in range(self.iteration if epoch == self.epoch else 0, self.schedule.iterations_per_epoch):
                yield self.training_key(epoch, iteration)
            for iteration in range(self.schedule.validation_iterations_at(epoch)):
                yield self.validation_key(epoch, iteration)

    def training_key(self, epoch: int, iteration: int) -> BatchKey:
        stage = self.schedule.stage_at(epoch)
        return BatchKey(
            phase="train",
            seed=self.seed,
            epoch=epoch,
            iteration=iteration,
            patch_size=self.schedule.patch_at(self.seed, epoch, iteration),
            batch_size=stage.batch_size,
            cases=stage.cases_per_batch,
            foreground_share=stage.foreground_share,
            held=self._held(stage.batch_size, stage.accumulation),
        )

    def validation_key(self, epoch: int, iteration: int) -> BatchKey:
        """Always the final patch and batch size."""
        return BatchKey(
            phase="validation",
            seed=self.seed,
            epoch=epoch,
            iteration=iteration,
            patch_size=self.schedule.stages[-1].patch_size,
            batch_size=self.final_batch,
            cases=self.final_batch,
            foreground_share=VALIDATION_FOREGROUND_SHARE,
            held=self._held(self.final_batch, 1),
        )

    def _held(self, batch: int, parts: int) -> tuple[int, ...] | None:
        return self.cut.slots(batch, parts) if self.cut.ranks > 1 else None


@dataclass(frozen=True)
class Pipeline:
    """How crops of any patch size become samples: nnU-Net's own settings, taken from the final patch.

    `transforms` is the trainer class, whose static methods build nnU-Net's pipelines; `options` are their arguments.
    """

    trainer: type[Any]
    channels: int
    batchwise: bool
    rotation: Any
    dummy_2d: bool
    mirror_axes: tuple[int, ...]
    deep_supervision_scales: Any
    options: dict[str, Any]
    validation_options: dict[str, Any]

    def training_transforms(self, patch_size: tuple[int, ...]) -> BasicTransform:
        return without_memory(
            self.trainer.get_training_transforms(
                patch_size,
                self.rotation,
                self.deep_supervision_scales,
                self.mirror_axes,
                self.dummy_2d,
                **self.options,
            )
        )

    def validation_transforms(self) -> BasicTransform:
        return without_memory(
            self.trainer.get_validation_transforms(self.deep_supervision_scales, **self.validation_options)
        )

    def crop_size(self, patch_size: tuple[int, ...]) -> tuple[int, ...]:
        """What is cropped so that rotation and scaling leave no empty corners in the patch."""
        size = get_patch_size(patch_size, self.rotation, self.rotation, self.rotation, _SCALE_RANGE)
        if self.dummy_2d:
            size[0] = patch_size[0]
        return tuple(int(s) for s in size)


class _OpenCases:
    """nnU-Net's dataset with the last few opened cases kept: many crops are taken of one case."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        # Listings of folders have no order of their own; what is drawn must not depend on it.
        self.identifiers = sorted(dataset.identifiers)
        self._open: OrderedDict[str, Any] = OrderedDict()

    def load_case(self, identifier: str) -> Any:
        if identifier in self._open:
            self._open.move_to_end(identifier)
        else:
            self._open[identifier] = self._dataset.load_case(identifier)
            if len(self._open) > _OPEN_CASES:
                self._open.popitem(last=False)
        return self._open[identifier]


class _KeyedLoader(nnUNetDataLoader):
    """nnU-Net's loader of one patch size, with its two sources of chance bound to the key.

    `generate_train_batch` asks for the cases once and for `get_do_oversample` at the start of every sample: there the
    generators that cropping and transforms draw from are seeded with the sample's key.
    """

    _key: BatchKey

    def batch(self, key: BatchKey) -> dict[str, Any]:
        self._key = key
        self.batch_size = len(key.slots)
        made: dict[str, Any] = self.generate_train_batch()
        made["key"] = key
        return made

    def get_indices(self) -> list[str]:
        cases = self._key.cases_of(self.indices)
        return [cases[self._key.case_of(slot)] for slot in self._key.slots]

    def _oversample_last_XX_percent(self, sample_idx: int) -> bool:
        slot = self._key.slots[sample_idx]
        state = self._key.seed_of(slot).generate_state(3)
        np.random.seed(int(state[0]))
        torch.default_generator.manual_seed(int(state[1]))
        random.seed(int(state[2]))
        return self._key.is_foreground(slot)


class KeyedBatches(Dataset[dict[str, Any]]):
    """Maps a `BatchKey` to its batch: `data` (b, c, z, y, x), `target` (list over deep supervision), `keys`, `key`.

    Training batches are cut and augmented whole where the pipeline can be (`ppgs.nnunet.augmentation`), by nnU-Net's
    loader and transforms sample by sample else. With `finished` false a batch holds `crops` in place of `data` and
    `target`, and `finish` augments them on the device that trains. Of a batch that several processes share there are
    this one's samples alone, and no more than `keys` and `key` where it has none.
    """

    def __init__(
        self, training: Any, validation: Any, pipeline: Pipeline, label_manager: Any, *, finished: bool = True
    ) -> None:
        self._pipeline, self._label_manager, self._finished = pipeline, label_manager, finished
        annotated, ignore = (-1, *label_manager.all_labels), label_manager.has_ignore_label
        self._datasets = {"train": training, "validation": validation}
        self._cases = {phase: CaseStore(data, annotated, has_ignore=ignore) for phase, data in self._datasets.items()}
        self._loaders: dict[tuple[Phase, tuple[int, ...]], _KeyedLoader] = {}
        self._augmentations: dict[tuple[Phase, tuple[int, ...]], BatchAugmentation] = {}

    def __getitem__(self, key: BatchKey) -> dict[str, Any]:
        try:
            if get_worker_info() is not None:
                return Travelling(self._read(key))
            with _one_thread(), _own_randomness() if not self._pipeline.batchwise else nullcontext():
                return self._read(key)
        except PpgsError as error:
            # From a worker PyTorch would raise it again as text, with the traceback in it.
            return {"error": error.to_record()}

    def _read(self, key: BatchKey) -> dict[str, Any]:
        """Raises `StorageFailed` where a case cannot be read for a reason that may pass."""
        try:
            return self._batch(key)
        except (OSError, RuntimeError) as problem:
            failure = unreadable(Path(self._datasets[key.phase].source_folder), self.cases_of(key))
            if failure is None:
                raise
            raise failure from problem

    def cases_of(self, key: BatchKey) -> list[str]:
        """The cases that a batch is cropped from, those of other processes' samples too."""
        return key.cases_of(self._cases[key.phase].identifiers)

    def finish(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """The batch with its crops augmented on the device; as it is where it has none."""
        crops = batch.get("crops")
        if crops is not None:
            augmentation = self._augmentation(batch["key"].phase, batch["key"].patch_size)
            batch["data"], batch["target"] = augmentation(crops.to(device))
            # Only now: where memory runs out they are augmented once more.
            del batch["crops"]
        return batch

    def _batch(self, key: BatchKey) -> dict[str, Any]:
        if not key.slots:
            return {"keys": [], "key": key}
        if not self._pipeline.batchwise:
            return self._loader(key.phase, key.patch_size).batch(key)
        batch = self._cut(key)
        return self.finish(batch, torch.device("cpu")) if self._finished else batch

    def _cut(self, key: BatchKey) -> dict[str, Any]:
        augmentation, cases = self._augmentation(key.phase, key.patch_size), self._cases[key.phase]
        random = np.random.default_rng(key.seed_of(None))
        chosen = random.choice(len(cases.identifiers), key.cases)
        # One row a sample, filled row by row: a sample's numbers depend neither on the batch size nor on the others.
        held = list(key.slots)
        uniforms = random.random((key.batch_size, COLUMNS + augmentation.columns))[held]
        moved, matrices = augmentation.movement(uniforms[:, COLUMNS:])
        patch = self._volume(key.patch_size)
        crop = self._volume(self._crop_size(key.phase, key.patch_size))
        images, labels = self._empty(len(held), patch)
        moved_images, moved_labels = self._empty(len(moved), crop)
        place = {int(row): i for i, row in enumerate(moved)}
        inset = np.array(crop) // 2 - np.array(patch) // 2
        names = []
        for number, case_index in enumerate(chosen):
            rows = [row for row, slot in enumerate(held) if key.case_of(slot) == number]
            if not rows:
                continue
            name = cases.identifiers[case_index]
            case = cases[name]
            foreground = np.array([key.is_foreground(held[row]) for row in rows])
            origins = crop_origins(case, foreground, crop, patch, uniforms[rows, :COLUMNS])
            for row, origin in zip(rows, origins, strict=True):
                if row in place:
                    cut(case, origin, moved_images[place[row]], moved_labels[place[row]])
                else:
                    cut(case, origin + inset, images[row], labels[row])
            names += [name] * len(rows)
        flat = len(key.patch_size) == 2
        image, label, moved_image, moved_label = (
            torch.from_numpy(a[:, :, 0] if flat else a) for a in (images, labels, moved_images, moved_labels)
        )
        crops = Crops(
            image=image,
            labels=label,
            moved=moved,
            moved_image=moved_image,
            moved_labels=moved_label,
            moved_values=labels_in(moved_labels),
            matrices=matrices,
            uniforms=uniforms[:, COLUMNS:],
        )
        return {"crops": crops, "keys": names, "key": key}

    def _volume(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """A 2D patch as nnU-Net cuts it: one slice of a volume."""
        return (1, *size) if len(size) == 2 else size

    def _empty(self, count: int, size: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        return (
            np.zeros((count, self._pipeline.channels, *size), np.float32),
            np.zeros((count, 1, *size), np.int16),
        )

    def _augmentation(self, phase: Phase, patch_size: tuple[int, ...]) -> BatchAugmentation:
        augmentation = self._augmentations.get((phase, patch_size))
        if augmentation is None:
            augmentation = translate(self._transforms(phase, patch_size), patch_size, self._pipeline.channels)
            self._augmentations[phase, patch_size] = augmentation
        return augmentation

    def _loader(self, phase: Phase, patch_size: tuple[int, ...]) -> _KeyedLoader:
        loader = self._loaders.get((phase, patch_size))
        if loader is None:
            loader = _KeyedLoader(
                _OpenCases(self._datasets[phase]),
                1,
                self._crop_size(phase, patch_size),
                patch_size,
                self._label_manager,
                transforms=self._transforms(phase, patch_size),
            )
            self._loaders[phase, patch_size] = loader
        return loader

    def _crop_size(self, phase: Phase, patch_size: tuple[int, ...]) -> tuple[int, ...]:
        return self._pipeline.crop_size(patch_size) if phase == "train" else patch_size

    def _transforms(self, phase: Phase, patch_size: tuple[int, ...]) -> BasicTransform:
        if phase == "train":
            return self._pipeline.training_transforms(patch_size)
        return self._pipeline.validation_transforms()


@contextmanager
def _one_thread() -> Iterator[None]:
    """In the training process too sums are rounded as a loader process rounds them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """nnU-Net's transforms draw from the generators of the process, which is the training's own here."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _as_is(batch: Any) -> Any:
    return batch


def _begin_worker(_: int) -> None:
    quiet_worker(os.getppid())


def make_loader(
    dataset: KeyedBatches, sampler: KeySampler, *, workers: int, pin_memory: bool
) -> DataLoader[dict[str, Any]]:
    """The one loader of a run. Its workers live as long as its single iterator."""
    fork = sys.platform.startswith("linux")
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=max(2, math.ceil(4 / workers)) if workers else None,
        multiprocessing_context=multiprocessing.get_context("fork" if fork else "spawn") if workers else None,
    )
