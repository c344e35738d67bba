"""A raw nnU-Net dataset of a few tiny images: a bright organ with a core, in noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

NAME = "Dataset321_Small"
SHAPE = (20, 24, 28)


def write_case(raw: Path, name: str, seed: int, *, merged: bool = False) -> None:
    """Write one case; with labels `merged`, its core is labelled as organ."""
    write_image(raw, name, seed)
    write_label(raw, name, seed, merged=merged)


def write_image(raw: Path, name: str, seed: int) -> Path:
    path = raw / "imagesTr" / f"{name}_0000.nii.gz"
    noise = np.random.default_rng(seed).normal(0, 20, SHAPE)
    _write((noise + _label(seed) * 80 + 100).astype(np.float32), path)
    return path


def write_label(raw: Path, name: str, seed: int, *, merged: bool = False) -> None:
    label = _label(seed)
    _write(np.minimum(label, 1) if merged else label, raw / "labelsTr" / f"{name}.nii.gz")


def remove_case(raw: Path, name: str) -> None:
    (raw / "imagesTr" / f"{name}_0000.nii.gz").unlink()
    (raw / "labelsTr" / f"{name}.nii.gz").unlink()


def write_dataset(raw: Path, count: int = 6) -> Path:
    """Write cases `case_00`... with their `dataset.json`."""
    for number in range(count):
        write_case(raw, f"case_{number:02d}", number)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "organ": 1, "core": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content, indent=1))
    return raw


def write_decathlon(folder: Path, names: Sequence[str] | None = None, first: int = 0) -> None:
    """Write cases in the Decathlon's layout, `case_00` to `case_05` unless `names` are given."""
    for seed, name in enumerate(names or [f"case_{number:02d}" for number in range(6)], first):
        write_case(folder, name, seed)
        image = folder / "imagesTr" / f"{name}_0000.nii.gz"
        image.rename(folder / "imagesTr" / f"{name}.nii.gz")
    content = {"modality": {"0": "MR"}, "labels": {"0": "background", "1": "organ", "2": "core"}, "numTraining": 6}
    (folder / "dataset.json").write_text(json.dumps(content))


def change_description(raw: Path, **changes: Any) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | changes))


def _label(seed: int) -> np.ndarray:
    centre = [
        s // 2 + int(o) for s, o in zip(SHAPE, np.random.default_rng(seed + 1000).integers(-2, 3, 3), strict=True)
    ]
    distance = np.sqrt(sum(((i - c) / (s / 5)) ** 2 for i, c, s in zip(np.indices(SHAPE), centre, SHAPE, strict=True)))
    return (distance < 1.5).astype(np.uint8) + (distance < 0.8).astype(np.uint8)


def _write(voxels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), True)
