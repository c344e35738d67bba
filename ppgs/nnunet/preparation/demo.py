"""The built-in task: a synthetic 3D segmentation problem, generated in seconds.

An irregular organ with a small lesion in it, in noise and under a bias field. Bright blobs outside the organ look like
the lesion, so a voxel's intensity alone does not tell its class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ppgs.nnunet.images.nifti import check_written

TRAINING_CASES = 24
TEST_CASES = 4
SHAPE = (32, 32, 32)
_SEED = 20261123

Volume = NDArray[np.float32]
Labels = NDArray[np.uint8]


def make_case(number: int) -> tuple[Volume, Labels]:
    """Return image and labels of one case, both of `SHAPE` (z, y, x), 1 mm; 0 background, 1 organ, 2 lesion."""
    rng = np.random.default_rng([_SEED, number])
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SHAPE), indexing="ij"))
    smooth = _field(rng, 5.0)
    size = np.array(SHAPE, np.float32)
    centre = size / 2 + rng.uniform(-2.5, 2.5, 3)
    radii = rng.uniform(7.5, 11.0, 3)
    distance = np.sqrt((((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0))
    organ = distance + 0.16 * smooth < 1
    decoys = np.zeros(SHAPE, bool)
    inside = centre + rng.uniform(-0.45, 0.45, 3) * radii
    lesion = _ball(grid, inside, rng.uniform(2.6, 3.6)) & organ
    for _ in range(3):
        direction = rng.normal(size=3)
        spot = centre + direction / np.linalg.norm(direction) * radii * rng.uniform(1.35, 1.7)
        decoys |= _ball(grid, spot, rng.uniform(2.0, 3.2)) & ~organ & (distance > 1.15)
    image = 0.9 * organ + 1.3 * (lesion | decoys)
    image = gaussian_filter(image.astype(np.float32), 0.6)
    image = image * (1 + 0.15 * _field(rng, 9.0)) + 0.25 * _field(rng, 9.0)
    image = image + rng.normal(0, 0.30, SHAPE)
    return (100 * image).astype(np.float32), (organ.astype(np.uint8) + lesion).astype(np.uint8)


def _field(rng: np.random.Generator, sigma: float) -> Volume:
    """Return a smooth random field of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.normal(size=SHAPE), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _ball(grid: Volume, centre: NDArray[np.floating], radius: float) -> NDArray[np.bool_]:
    return np.asarray(((grid - centre[:, None, None, None]) ** 2).sum(0) < radius**2)


def write_dataset(folder: Path, report: Callable[[int, int], None]) -> None:
    """Write the task as a raw nnU-Net dataset into `folder`; `report(done, total)` after every case."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    total = TRAINING_CASES + TEST_CASES
    for number in range(total):
        image, labels = make_case(number)
        training = number < TRAINING_CASES
        _write(image, folder / ("imagesTr" if training else "imagesTs") / f"demo_{number:03d}_0000.nii.gz")
        if training:
            _write(labels, folder / "labelsTr" / f"demo_{number:03d}.nii.gz")
        report(number + 1, total)
    content = {
        "channel_names": {"0": "synthetic"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": TRAINING_CASES,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def _write(array: Volume | Labels, path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    check_written(path)
