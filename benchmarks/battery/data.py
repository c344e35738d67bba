"""Preprocessed cases of a task's shapes as nnU-Net stores them (`.b2nd`), written without images and without ITK."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_task import put_ball

from ppgs.tasks import Roots

TINY = Path(__file__).resolve().parent / "tiny"
TINY_TASK = "Dataset998_Tiny"
CONFIGURATION = "3d_fullres"


def plans_folder(plans: Path | None, name: str, *, dry: bool) -> Path | None:
    """The folder with the plans of the task whose name holds `name`; None where it is absent. Dry: the tiny task's."""
    if dry:
        return TINY
    found = sorted(plans.glob(f"Dataset*{name}*")) if plans is not None else []
    return found[0] if found else None


def write_task(folder: Path, roots: Roots, cases: int = 5, cap: float | None = None) -> str:
    """Write plans, splits and so many cases of noise with a ball for every class; return the dataset's name.

    Cases have the task's median shape, at most `cap` patches along each axis.

    `folder` holds nnUNetPlans.json and dataset.json. What is there already is left as it is. The first fold validates
    on one case.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params as blocks
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    name: str = plans["dataset_name"]
    prepared, setup = roots.preprocessed / name, plans["configurations"][CONFIGURATION]
    if (prepared / "splits_final.json").is_file():
        return name
    cells = prepared / setup["data_identifier"]
    cells.mkdir(parents=True, exist_ok=True)
    for file in ("nnUNetPlans.json", "dataset_fingerprint.json"):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, prepared / file)
    if not (prepared / "dataset_fingerprint.json").is_file():
        # nnU-Net copies it and reads it nowhere in a training.
        (prepared / "dataset_fingerprint.json").write_text("{}")
    dataset |= {"file_ending": ".nii.gz", "numTraining": cases}
    (prepared / "dataset.json").write_text(json.dumps(dataset))
    shape = tuple(int(n) for n in np.rint(setup["median_image_size_in_voxels"]))
    patch = tuple(setup["patch_size"])
    if cap is not None:
        shape = tuple(min(n, math.ceil(cap * p)) for n, p in zip(shape, patch, strict=True))
    classes = sorted({int(v) for label in dataset["labels"].values() for v in np.atleast_1d(label) if v > 0})
    names = [f"case_{number:03d}" for number in range(cases)]
    for number, case in enumerate(names):
        rng = np.random.default_rng(number)
        labels = np.zeros(shape, np.int8)
        for value in classes:
            put_ball(labels, rng, value)
        image = rng.standard_normal((len(dataset["channel_names"]), *shape), np.float32) + labels
        target = labels[None]
        image_blocks, image_chunks = blocks(image.shape, patch, image.itemsize)
        label_blocks, label_chunks = blocks(target.shape, patch, target.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image, target, properties(labels, classes, setup), str(cells / case),
            chunks=image_chunks, blocks=image_blocks, chunks_seg=label_chunks, blocks_seg=label_blocks,
        )  # fmt: skip
    folds = [{"train": [n for n in names if n != case], "val": [case]} for case in names]
    (prepared / "splits_final.json").write_text(json.dumps(folds))
    return name


def properties(labels: Any, classes: list[int], setup: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a case from nnU-Net's preprocessor that training and its sliding window read."""
    rng = np.random.default_rng(0)
    locations: dict[int, Any] = {}
    for value in classes:
        voxels = np.argwhere(labels[None] == value)
        locations[value] = voxels[rng.choice(len(voxels), min(len(voxels), 10_000), replace=False)]
    shape = labels.shape
    found = {
        "spacing": list(setup["spacing"]),
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
        "class_locations": locations,
    }
    # It must be readable as nnU-Net reads it.
    pickle.loads(pickle.dumps(found))
    return found
