"""Crops of preprocessed cases for whole batches: nnU-Net's sampling (`nnUNetDataLoader.get_bbox`) without its loop.

The place of a crop is a function of its row of uniform numbers. Boxes are in voxels, axis order (z, y, x); data of a 2D
configuration have the same three axes, and patches of one slice.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Uniform numbers a crop takes: its class, its voxel of that class, its place on three axes.
COLUMNS = 5
# Cases up to this size are kept decompressed; of larger ones only a crop's blocks are read.
_WHOLE_BYTES = 8 << 20
# Memory limit for cases cached by one loader worker.
_HELD_BYTES = 128 << 20
_OPEN_FILE_BYTES = 1 << 20
_PADDING_LABEL = -1
# Boxes of one size are resampled together: their sides are multiples of this, or the crop's.
_BOX_STEP = 8
# Up to this many values are searched one by one.
_FEW_LABELS = 8

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A preprocessed case: arrays (c, z, y, x), decompressed or on disk, and voxels (n, 3) to centre crops on."""

    data: Any
    labels: Any
    foreground: tuple[NDArray[np.integer[Any]], ...]
    annotated: NDArray[np.integer[Any]] | None
    held_bytes: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape[1:])


class CaseStore:
    """nnU-Net's dataset of preprocessed cases, with the last used kept open, small ones decompressed.

    `annotated` is the key of `class_locations` that lists all annotated voxels, if there is an ignore label.
    """

    def __init__(self, dataset: Any, annotated: tuple[int, ...], *, has_ignore: bool) -> None:
        self._dataset, self._annotated, self._has_ignore = dataset, annotated, has_ignore
        # Folder listings have no defined order; random draws must not depend on it.
        self.identifiers: list[str] = sorted(dataset.identifiers)
        self._held: OrderedDict[str, Case] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, identifier: str) -> Case:
        case = self._held.get(identifier)
        if case is not None:
            self._held.move_to_end(identifier)
            return case
        case = self._held[identifier] = self._load(identifier)
        self._bytes += case.held_bytes
        while self._bytes > _HELD_BYTES and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].held_bytes
        return case

    def _load(self, identifier: str) -> Case:
        data, labels, _, properties = self._dataset.load_case(identifier)
        size = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in (data, labels))
        if size <= _WHOLE_BYTES:
            data, labels = np.asarray(data[:]), np.asarray(labels[:])
        else:
            size = 2 * _OPEN_FILE_BYTES
        classes = self._classes(properties["class_locations"])
        annotated = None
        if self._has_ignore:
            annotated = _compact(properties["class_locations"][self._annotated])
            size += annotated.nbytes
        return Case(data, labels, classes, annotated, size + sum(c.nbytes for c in classes))

    def _classes(self, locations: Mapping[Any, Any]) -> tuple[NDArray[np.integer[Any]], ...]:
        """Return the voxels of every class that the case has; all annotated voxels only if there is no class."""
        present = [key for key, voxels in locations.items() if len(voxels)]
        if len(present) > 1 and self._annotated in present:
            present.remove(self._annotated)
        return tuple(_compact(locations[key]) for key in present)


def in_full(case: Case) -> Case:
    """Return the case with its arrays decompressed."""
    return replace(case, data=np.asarray(case.data[:]), labels=np.asarray(case.labels[:]))


def _compact(voxels: Any) -> NDArray[np.integer[Any]]:
    """Store the voxels (n, 1 + 3) of `class_locations` without their channel, in the smallest integer type."""
    places: NDArray[np.integer[Any]] = np.asarray(voxels).reshape(-1, 4)[:, 1:]
    kind: type[np.integer[Any]] = np.uint16 if not len(places) or places.max() < 2**16 else np.int32
    compact: NDArray[np.integer[Any]] = places.astype(kind)
    return compact


def crop_origins(
    cases: Sequence[Case],
    foreground: NDArray[np.bool_],
    crop: Sequence[int],
    patch: Sequence[int],
    u: NDArray[np.float64],
) -> Ints:
    """Choose the first voxels (n, 3) of a crop of each case, possibly outside it; `u` (n, COLUMNS) uniform in [0, 1).

    As `nnUNetDataLoader.get_bbox`: crops that must show `foreground` are centred on a voxel of one of the case's
    classes, all being equally likely, so far as they do not leave the image on its lower side; the others lie anywhere,
    or, with an ignore label, on an annotated voxel.
    """
    size, shapes = np.array(crop), np.array([case.shape for case in cases])
    padding = np.maximum(size - np.array(patch), size - shapes)
    low = np.floor_divide(-padding, 2)
    high = shapes + padding // 2 + padding % 2 - size
    origins: Ints = low + np.floor(u[:, 2:] * (high - low + 1)).astype(np.int64)
    for i, (case, shows) in enumerate(zip(cases, foreground.tolist(), strict=True)):
        voxels: NDArray[np.integer[Any]] | None = None
        if shows and case.foreground:
            voxels = case.foreground[int(u[i, 0] * len(case.foreground))]
        elif not shows and case.annotated is not None and len(case.annotated):
            voxels = case.annotated
        if voxels is not None:
            centre = voxels[int(u[i, 1] * len(voxels))].astype(np.int64)
            origins[i] = np.maximum(low[i], centre - size // 2)
    return origins


def box(
    shape: Sequence[int], origin: Ints, crop: Sequence[int], *, fixed: int
) -> tuple[tuple[int, ...], Ints, NDArray[np.float64]]:
    """Choose a box with everything that a crop at `origin` can show of an image of this `shape`.

    Returns its size, its first voxel, and the offset of the crop's centre from its own, all (3,); the first `fixed`
    axes stay as long as the crop's. It leaves out padding, which is most of a crop that is larger than its image. Its
    size depends on the image alone, since interpolation rounds otherwise in boxes of another size, and is one of few.
    """
    whole = np.array(crop)
    size = np.minimum(whole, -(-np.array(shape) // _BOX_STEP) * _BOX_STEP)
    size[:fixed] = whole[:fixed]
    start: Ints = np.clip(np.maximum(origin, 0), origin, origin + whole - size)
    return tuple(size.tolist()), start, (origin + whole / 2) - (start + size / 2)


def cut(case: Case, origin: Ints, data: NDArray[np.float32], labels: NDArray[np.int16]) -> None:
    """Fill `data` (c, z, y, x) and `labels` (1, z, y, x) with the box at `origin`; beyond the image 0 and -1."""
    size, shape = data.shape[1:], case.shape
    first = np.maximum(origin, 0)
    last = np.minimum(origin + size, shape)
    if (last - first < size).any():
        data.fill(0.0)
        labels.fill(_PADDING_LABEL)
        if (last <= first).any():
            return
    source = (slice(None), *(slice(int(a), int(b)) for a, b in zip(first, last, strict=True)))
    target = (slice(None), *(slice(int(a), int(b)) for a, b in zip(first - origin, last - origin, strict=True)))
    data[target] = case.data[source]
    labels[target] = case.labels[source]


def labels_in(labels: NDArray[np.integer[Any]]) -> tuple[int, ...]:
    """Return the sorted distinct values, like `numpy.unique` but many times faster for labels."""
    flat = labels.ravel()
    first, last = (int(flat.min()), int(flat.max())) if flat.size else (0, -1)
    if last - first < _FEW_LABELS:
        return tuple(value for value in range(first, last + 1) if (flat == value).any())
    # Most voxels equal their neighbours: one of each run is sorted.
    ends_run = flat[:-1] != flat[1:]
    return tuple(int(v) for v in np.unique(np.append(flat[:-1][ends_run], flat[-1:])))
