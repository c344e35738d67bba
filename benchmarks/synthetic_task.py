"""A task of another one's shapes, where its images are not at hand: noise with a ball for every class.

    python benchmarks/synthetic_task.py FOLDER --root DIR [--cases 10] [--configuration 3d_fullres]

FOLDER contains plans, fingerprint and `dataset.json` of a real task. They are taken as they are, so stages, network and
steps are the real task's; every image has the configuration's median size and spacing. `ppgs prepare`, `train` and
`benchmarks/speed.py` then take the folder's name for TASK. What is learnt there says nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ppgs.tasks import Roots


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--configuration", default="3d_fullres")
    return parser.parse_args()


def make(folder: Path, roots: Roots, cases: int, configuration: str) -> None:
    """Plans where `ppgs prepare` looks for them, and this many raw cases."""
    raw, prepared = roots.raw / folder.name, roots.preprocessed / folder.name
    prepared.mkdir(parents=True)
    for file in folder.glob("*.json"):
        shutil.copyfile(file, prepared / file.name)
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset |= {"file_ending": ".nii.gz", "numTraining": cases}
    (prepared / "dataset.json").write_text(json.dumps(dataset))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    setup, back = plans["configurations"][configuration], plans["transpose_backward"]
    size = np.rint(setup["median_image_size_in_voxels"]).astype(int)[back]
    spacing = np.array(setup["spacing"])[back]
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps(dataset))
    values = sorted(v for label in dataset["labels"].values() for v in np.atleast_1d(label) if v > 0)
    for number in range(cases):
        rng = np.random.default_rng(number)
        labels = np.zeros(size, np.uint8)
        for value in values:
            put_ball(labels, rng, value)
        write(labels, spacing, raw / "labelsTr" / f"case_{number:03d}.nii.gz")
        for channel in range(len(dataset["channel_names"])):
            image = 40.0 * labels + rng.normal(100, 20, size)
            write(image.astype(np.int16), spacing, raw / "imagesTr" / f"case_{number:03d}_{channel:04d}.nii.gz")


def put_ball(labels: Any, rng: np.random.Generator, value: int) -> None:
    """A ball (z, y, x) of a tenth of the shortest axis, anywhere."""
    radius = max(2, min(labels.shape) // 10)
    centre = [int(rng.integers(min(radius, n - 1), max(radius + 1, n - radius))) for n in labels.shape]
    box = tuple(slice(max(0, c - radius), c + radius + 1) for c in centre)
    grid = np.ogrid[box]
    labels[box][sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2] = value


def write(array: Any, spacing: Any, path: Path) -> None:
    # `put_ball` is also of use where ITK is not installed.
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    sitk.WriteImage(image, str(path))


def main() -> None:
    options = arguments()
    folder = options.folder.resolve()
    make(folder, Roots.under(options.root), options.cases, options.configuration)
    print(f"{folder.name}: {options.cases} cases in {options.root}")


if __name__ == "__main__":
    main()
