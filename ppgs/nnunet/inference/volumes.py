"""Voxel counts and volumes of the classes of a segmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ppgs.nnunet.images.geometry import READERS_WITH_GEOMETRY

Classes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Amount:
    """Amount of a class. A 3D image has a volume, a 2D one an area; None if its format has no spacing."""

    voxels: int
    volume_ml: float | None
    area_mm2: float | None


def amounts(segmentation: Path, classes: Classes, reader: Any) -> dict[str, Amount]:
    """Return the amount of each class; a region counts all of its labels. `reader` is nnU-Net's."""
    values, spacing = _read(segmentation, reader)
    counts = count_labels(values)
    found = {}
    for name, labels in classes.items():
        voxels = sum(int(counts[label]) for label in labels if label < len(counts))
        size = None if spacing is None else voxels * math.prod(spacing)
        flat = values.ndim == 2
        found[name] = Amount(voxels, None if size is None or flat else size / 1000, size if flat else None)
    return found


def count_labels(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count each label slice by slice: NumPy needs eight bytes per voxel."""
    counts = np.zeros(int(values.max(initial=0)) + 1, np.int64)
    for part in values:
        counts += np.bincount(part.ravel(), minlength=len(counts))
    return counts


def _read(path: Path, reader: Any) -> tuple[NDArray[Any], tuple[float, ...] | None]:
    if type(reader).__name__ in READERS_WITH_GEOMETRY:
        image = sitk.ReadImage(str(path))
        return sitk.GetArrayFromImage(image).astype(np.int32, copy=False), tuple(image.GetSpacing())
    labels, properties = reader.read_seg(str(path))
    values = labels[0].astype(np.int32)
    # nnU-Net's own place for the spacing of TIFF files; without it, it assumes 1 mm.
    if type(reader).__name__ == "Tiff3DIO" and path.with_name(f"{path.name.rpartition('.')[0]}.json").is_file():
        return values, tuple(float(s) for s in properties["spacing"])
    return (values[0] if len(values) == 1 else values), None
