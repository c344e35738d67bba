"""Batches as pure functions of keys: one `DataLoader` serves a whole run, whatever the stage, worker or restart.

A sample is determined by `(seed, phase, epoch, iteration, slot)`: which case, which crop, which augmentation. The
sampler emits the keys of training and validation batches in the very order in which the training asks for them.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ppgs import upstream
from ppgs.errors import PpgsError
from ppgs.nnunet.data.augmentation import BatchAugmentation, Crops, Moved, Target, translate
from ppgs.nnunet.data.cases import unreadable
from ppgs.nnunet.data.crops import COLUMNS, CaseStore, box, crop_origins, cut, in_full, labels_in
from ppgs.nnunet.data.keys import BatchKey, KeyGroups, KeySampler, Phase
from ppgs.nnunet.data.samplewise import without_memory
from ppgs.nnunet.data.transport import Travelling
from ppgs.processes.pool import quickest_start
from ppgs.processes.worker import quiet_worker

_OPEN_CASES = 32
# Samples of up to this many voxels in all are rotated and scaled together, on the CPU and on another device.
_TOGETHER_VOXELS, _TOGETHER_ON_DEVICE = 2**18, 2**22


@dataclass(frozen=True)
class Pipeline:
    """Settings for samples of any patch size: nnU-Net's own, taken from the final patch.

    `trainer` is the trainer class, whose static methods build nnU-Net's pipelines; `options` are their arguments.
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
    # The final patch, and what a custom trainer crops for it; None where that is nnU-Net's rule.
    own_crop: tuple[tuple[int, ...], tuple[int, ...]] | None = None

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

    def check(self, patch_sizes: Iterable[tuple[int, ...]]) -> None:
        """Raise `Untranslatable` if batches of these patch sizes cannot be augmented together (see `batchwise`)."""
        if self.batchwise:
            for patch_size in patch_sizes:
                for transforms in (self.training_transforms(patch_size), self.validation_transforms()):
                    translate(transforms, patch_size, self.channels)

    def crop_size(self, patch_size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the crop size that leaves no empty corners in the patch after rotation and scaling."""
        if self.own_crop is not None:
            # As much more than the patch, axis by axis, as the trainer crops for the final one.
            sides = zip(patch_size, *self.own_crop, strict=True)
            return tuple(max(side, round(side * crop / final)) for side, final, crop in sides)
        size = get_patch_size(patch_size, self.rotation, self.rotation, self.rotation, upstream.SCALE_RANGE)
        if self.dummy_2d:
            size[0] = patch_size[0]
        return tuple(int(s) for s in size)


class _OpenCases:
    """nnU-Net's dataset with the last few opened cases cached: many crops are taken of one case."""

    def __init__(self, dataset: Any) -> None:
        # Folder listings have no defined order; random draws must not depend on it.
        self.identifiers = sorted(dataset.identifiers)
        self.load_case = lru_cache(_OPEN_CASES)(dataset.load_case)


class _KeyedLoader(nnUNetDataLoader):
    """nnU-Net's loader of one patch size, with its two random sources seeded by the key.

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


class KeyedBatches(Dataset[list[dict[str, Any]]]):
    """Maps `BatchKey`s to batches: `data` (b, c, z, y, x), `target` (list over deep supervision), `keys`, `key`.

    Training batches are cut and augmented whole where the pipeline can be (`ppgs.nnunet.data.augmentation`), by
    nnU-Net's loader and transforms sample by sample else. With `finished` false batches have no `data` and `target`:
    the first of a `group` carries the `crops` of all of them, and `finish`, in their order, augments them on the device
    that trains. If several processes share a batch there are this one's samples alone, and no more than `keys` and
    `key` where it has none.
    """

    def __init__(
        self, training: Any, validation: Any, pipeline: Pipeline, label_manager: Any, *, finished: bool = True
    ) -> None:
        self._pipeline, self._label_manager, self._finished = pipeline, label_manager, finished
        # Batches whose samples are made one by one gain nothing from being requested together.
        self.takes_groups = pipeline.batchwise
        annotated, ignore = (-1, *label_manager.all_labels), label_manager.has_ignore_label
        self._datasets = {"train": training, "validation": validation}
        self._cases = {phase: CaseStore(data, annotated, has_ignore=ignore) for phase, data in self._datasets.items()}
        self._loaders: dict[tuple[Phase, tuple[int, ...]], _KeyedLoader] = {}
        self._augmentations: dict[tuple[Phase, tuple[int, ...]], BatchAugmentation] = {}
        self._crop_sizes: dict[tuple[int, ...], tuple[int, ...]] = {}
        # Batches that were augmented with the first of their group, until `finish` returns them.
        self._ready: dict[BatchKey, dict[str, Any]] = {}

    def __getitem__(self, keys: tuple[BatchKey, ...]) -> list[dict[str, Any]]:
        """Return the batches of keys of one phase, patch and batch size; an empty list for no keys."""
        if not keys:
            return []
        in_training = get_worker_info() is None
        try:
            # nnU-Net's transforms must give the same result here as in a loader worker.
            with _as_in_worker() if in_training and not self._pipeline.batchwise else nullcontext():
                made = self._read(keys)
        except PpgsError as error:
            if len(keys) > 1:
                return self._until_it_fails(keys)
            # From a worker PyTorch would raise it again as text, with the traceback in it.
            return [{"error": error.to_record()}]
        return made if in_training else [Travelling(batch) for batch in made]

    def _until_it_fails(self, keys: tuple[BatchKey, ...]) -> list[dict[str, Any]]:
        """Make the batches one by one, so that those before a failure are still trained on."""
        made: list[dict[str, Any]] = []
        for key in keys:
            made += self[(key,)]
            if "error" in made[-1]:
                break
        return made

    def _read(self, keys: tuple[BatchKey, ...]) -> list[dict[str, Any]]:
        """Read the batches; raises `StorageFailed` if a case cannot be read for a reason that may pass."""
        try:
            return self._batches(keys)
        except (OSError, RuntimeError) as problem:
            names = sorted({name for key in keys for name in self.cases_of(key)})
            failure = unreadable(Path(self._datasets[keys[0].phase].source_folder), names)
            if failure is None:
                raise
            raise failure from problem

    def cases_of(self, key: BatchKey) -> list[str]:
        """Return the cases that a batch is cropped from, including those of other ranks' samples."""
        return key.cases_of(self._cases[key.phase].identifiers)

    def finish(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """Augment the crops of a group on the device; return the batch with its samples, unchanged if it has them."""
        crops, key = batch.get("crops"), batch["key"]
        if crops is not None:
            group: Sequence[BatchKey] = batch["group"]
            data, target = self._augmentation(key.phase, key.patch_size).on(device, crops)
            self._ready = dict(zip(group, _parted(data, target, [len(one.slots) for one in group]), strict=True))
            # Only now: if memory runs out, they are augmented again.
            del batch["crops"], batch["group"]
        batch.update(self._ready.pop(key, {}))
        return batch

    def _batches(self, keys: tuple[BatchKey, ...]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = [{"keys": [], "key": key} for key in keys]
        filled = [batch for batch in made if batch["key"].slots]
        if not self._pipeline.batchwise:
            for batch in filled:
                key = batch["key"]
                batch.update(self._loader(key.phase, key.patch_size).batch(key))
        elif filled:
            group = tuple(batch["key"] for batch in filled)
            crops, names = self._cut(group)
            augmentation, counts = self._augmentation(keys[0].phase, keys[0].patch_size), [len(k.slots) for k in group]
            if self._finished:
                for batch, part in zip(filled, _parted(*augmentation(crops), counts), strict=True):
                    batch.update(part)
            else:
                filled[0].update(crops=augmentation.prepared(crops), group=group)
            last = 0
            for batch, count in zip(filled, counts, strict=True):
                first, last = last, last + count
                batch["keys"] = names[first:last]
        return made

    def _cut(self, keys: tuple[BatchKey, ...]) -> tuple[Crops, list[str]]:
        """Cut the crops of these batches, batch after batch; return them with the names of their cases."""
        phase, patch_size = keys[0].phase, keys[0].patch_size
        augmentation, cases = self._augmentation(phase, patch_size), self._cases[phase]
        patch, crop = self._volume(patch_size), self._volume(self._crop_size(phase, patch_size))
        inset = np.array(crop) // 2 - np.array(patch) // 2
        image, labels = self._arrays(sum(len(key.slots) for key in keys), patch)
        names: list[str] = []
        rows: list[NDArray[np.float64]] = []
        for key in keys:
            random = np.random.default_rng(key.seed_of(None))
            chosen = random.choice(len(cases.identifiers), key.cases)
            # One row a sample, filled row by row: its numbers depend neither on the batch size nor on the others.
            rows.append(random.random((key.batch_size, COLUMNS + augmentation.columns))[list(key.slots)])
            names += [cases.identifiers[chosen[key.case_of(slot)]] for slot in key.slots]
        uniforms = np.concatenate(rows)
        moved, matrices = augmentation.movement(uniforms[:, COLUMNS:])
        place = {int(row): i for i, row in enumerate(moved)}
        moving: list[_Moving] = []
        first = 0
        for key in keys:
            # Batch by batch: the store may hold no more than a few cases.
            own = range(first, first + len(key.slots))
            first = own.stop
            opened = {name: cases[name] for name in dict.fromkeys(names[own.start : own.stop])}
            shown = [opened[names[row]] for row in own]
            foreground = np.array([key.is_foreground(slot) for slot in key.slots])
            origins = crop_origins(shown, foreground, crop, patch, uniforms[own.start : own.stop, :COLUMNS])
            wanted: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int16]]]] = {}
            for row, case, origin in zip(own, shown, origins, strict=True):
                crops_of_case = wanted.setdefault(names[row], [])
                if row in place:
                    # nnU-Net's dummy 2D makes channels of slices, whose number is the patch's.
                    size, start, offset = box(case.shape, origin, crop, fixed=int(self._pipeline.dummy_2d))
                    found = self._arrays(1, size)
                    crops_of_case.append((start, found[0][0], found[1][0]))
                    moving.append(_Moving(row, *found, matrices[place[row]], offset[-len(patch_size) :]))
                else:
                    crops_of_case.append((origin + inset, image[row], labels[row]))
            for name, crops_of_case in wanted.items():
                case = opened[name]
                if sum(part.size for *_, part in crops_of_case) > math.prod(case.shape):
                    # Every crop decompresses the blocks that it overlaps.
                    case = in_full(case)
                for start, data, segmentation in crops_of_case:
                    cut(case, start, data, segmentation)
        flat = len(patch_size) == 2
        crops = Crops(
            image=_tensor(image, flat=flat),
            labels=_tensor(labels, flat=flat),
            moved=_alike(moving, _TOGETHER_VOXELS if self._finished else _TOGETHER_ON_DEVICE, flat=flat),
            uniforms=uniforms[:, COLUMNS:],
        )
        return crops, names

    def _volume(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the volume of one slice in which nnU-Net cuts a 2D patch."""
        return (1, *size) if len(size) == 2 else size

    def _arrays(self, count: int, size: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Allocate images and labels of this many crops, not filled in."""
        return (
            np.empty((count, self._pipeline.channels, *size), np.float32),
            np.empty((count, 1, *size), np.int16),
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
        if phase != "train":
            return patch_size
        if patch_size not in self._crop_sizes:
            self._crop_sizes[patch_size] = self._pipeline.crop_size(patch_size)
        return self._crop_sizes[patch_size]

    def _transforms(self, phase: Phase, patch_size: tuple[int, ...]) -> BasicTransform:
        if phase == "train":
            return self._pipeline.training_transforms(patch_size)
        return self._pipeline.validation_transforms()


class _Moving(NamedTuple):
    """One rotated or scaled sample: its row, arrays (1, c, z, y, x), matrix (d, d) and offset (d)."""

    row: int
    image: NDArray[np.float32]
    labels: NDArray[np.int16]
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]


def _alike(moving: list[_Moving], most: int, *, flat: bool) -> list[Moved]:
    """Group samples whose arrays are of one size, up to `most` voxels: large ones are faster one by one."""
    together: dict[tuple[int, ...], list[list[_Moving]]] = {}
    for one in moving:
        runs = together.setdefault(one.labels.shape, [[]])
        if len(runs[-1]) * one.labels.size >= most:
            runs.append([])
        runs[-1].append(one)
    found = []
    for run in (run for runs in together.values() for run in runs):
        rows, images, labels, matrices, offsets = zip(*run, strict=True)
        joined = _joined(labels)
        found.append(
            Moved(
                rows=np.array(rows),
                image=_tensor(_joined(images), flat=flat),
                labels=_tensor(joined, flat=flat),
                values=labels_in(joined),
                matrices=np.stack(matrices),
                offsets=np.stack(offsets),
            )
        )
    return found


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _tensor(array: NDArray[Any], *, flat: bool) -> torch.Tensor:
    """Return arrays (n, c, z, y, x) as a tensor, for 2D patches without the single slice."""
    return torch.from_numpy(array[:, :, 0] if flat else array)


def _parted(data: torch.Tensor, target: Target, counts: list[int]) -> list[dict[str, Any]]:
    """Split `data` and `target` into batches with these numbers of samples."""
    images = torch.split(data, counts)
    if not isinstance(target, list):
        return [{"data": d, "target": t} for d, t in zip(images, torch.split(target, counts), strict=True)]
    targets = zip(*(torch.split(part, counts) for part in target), strict=True)
    return [{"data": d, "target": list(t)} for d, t in zip(images, targets, strict=True)]


def samples_of(batch: dict[str, Any], slots: slice) -> dict[str, Any]:
    """Return `data` and `target` of these samples; with deep supervision the target is a list."""
    target = batch["target"]
    chosen = [t[slots] for t in target] if isinstance(target, list) else target[slots]
    return {"data": batch["data"][slots], "target": chosen}


@contextmanager
def _as_in_worker() -> Iterator[None]:
    """Within the block, use one thread (for identical rounding) and separate random generators, as in a worker."""
    threads = torch.get_num_threads()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _as_is(batch: Any) -> Any:
    return batch


def _begin_worker(_: int) -> None:
    quiet_worker(os.getppid())


def make_loader(
    dataset: KeyedBatches, sampler: KeySampler, *, workers: int, pin_memory: bool
) -> DataLoader[list[dict[str, Any]]]:
    """Make the only loader of a run; it yields several batches at a time. Its workers live as long as its iterator."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=KeyGroups(sampler) if dataset.takes_groups else KeyGroups(sampler, most=1),
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=max(2, math.ceil(4 / workers)) if workers else None,
        multiprocessing_context=quickest_start() if workers else None,
    )
