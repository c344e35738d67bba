"""Small raw datasets in nnU-Net's and the Decathlon's layout, for tests to spoil."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SHAPE = (16, 20, 24)
MIRRORED = (-1, 0, 0, 0, 1, 0, 0, 0, 1)


def voxels(seed: int, shape: Sequence[int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image and its label: an organ (1) with a core (2) in noise."""
    rng = np.random.default_rng(seed)
    distance = sum(((i - n // 2) / (n / 4)) ** 2 for i, n in zip(np.indices(shape), shape, strict=True))
    label = (distance < 1).astype(np.uint8) + (distance < 0.3).astype(np.uint8)
    return (rng.normal(100, 10, shape) + 50 * label).astype(np.float32), label


def write(array: np.ndarray, path: Path, **place: Any) -> Path:
    """Write an image; `spacing`, `origin` and `direction` as ITK takes them."""
    image = sitk.GetImageFromArray(array)
    for name, value in place.items():
        getattr(image, f"Set{name.title()}")(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)
    return path


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def dataset(
    raw: Path,
    name: str = "Dataset042_Small",
    *,
    cases: Sequence[str] = tuple("abcdef"),
    channels: int = 1,
    ending: str = ".nii.gz",
    **changes: Any,
) -> Path:
    """A raw nnU-Net dataset; `changes` to dataset.json, where None removes a key."""
    folder = raw / name
    for seed, case in enumerate(cases):
        image, label = voxels(seed)
        for channel in range(channels):
            write(image + channel, folder / "imagesTr" / f"{case}_{channel:04d}{ending}")
        write(label, folder / "labelsTr" / f"{case}{ending}")
    content = {
        "channel_names": {str(c): f"MR{c}" for c in range(channels)},
        "labels": {"background": 0, "organ": 1, "core": 2},
        "numTraining": len(cases),
        "file_ending": ending,
    }
    describe(folder, **content | changes)
    return folder


def decathlon(
    parent: Path, name: str = "Task42_Small", *, cases: Sequence[str] = tuple("abcdef"), **changes: Any
) -> Path:
    """A Decathlon folder; `changes` to dataset.json, where None removes a key."""
    folder = parent / name
    for seed, case in enumerate(cases):
        image, label = voxels(seed)
        write(image, folder / "imagesTr" / f"{case}.nii.gz")
        write(label, folder / "labelsTr" / f"{case}.nii.gz")
    labels = {"0": "background", "1": "organ", "2": "core"}
    describe(folder, **{"modality": {"0": "MR"}, "labels": labels, "numTraining": len(cases)} | changes)
    return folder


def describe(folder: Path, **content: Any) -> None:
    """Write dataset.json without the keys that are None."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept), encoding="utf-8")


def redescribe(folder: Path, **changes: Any) -> None:
    """Change keys of a dataset.json; None removes one."""
    describe(folder, **json.loads((folder / "dataset.json").read_text(encoding="utf-8")) | changes)


def relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change every label image."""
    for path in sorted((folder / "labelsTr").iterdir()):
        write(change(read(path)), path)


def pictures(raw: Path, name: str = "Dataset043_Pictures", *, colours: bool, cases: int = 6) -> Path:
    """A 2D dataset of PNG pictures: one file a case, grey or with the channels R, G and B."""
    folder = raw / name
    for seed in range(cases):
        image, label = voxels(seed, (48, 56))
        grey = np.clip(image, 0, 255).astype(np.uint8)
        if colours:
            picture = sitk.GetImageFromArray(np.stack([grey, grey // 2, 255 - grey], axis=-1), isVector=True)
        else:
            picture = sitk.GetImageFromArray(grey)
        for part, content in (("imagesTr", picture), ("labelsTr", sitk.GetImageFromArray(label))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            ending = "_0000.png" if part == "imagesTr" else ".png"
            sitk.WriteImage(content, str(folder / part / f"p{seed}{ending}"))
    names = ["R", "G", "B"] if colours else ["grey"]
    describe(
        folder,
        channel_names={str(i): n for i, n in enumerate(names)},
        labels={"background": 0, "organ": 1, "core": 2},
        numTraining=cases,
        file_ending=".png",
    )
    return folder
