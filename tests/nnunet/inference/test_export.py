"""The export class by class gives nnU-Net's segmentation, voxel for voxel, with memory that no class adds to."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits, resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.nnunet.inference.export import deciding, export, streams

LABELS = {"labels": {"background": 0, **{f"c{n}": n for n in range(1, 5)}}, "file_ending": ".nii.gz"}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
    "file_ending": ".nii.gz",
}
IGNORED = {"labels": {"background": 0, "a": 1, "ignore": 2}, "file_ending": ".nii.gz"}
DEFAULT = ("resample_data_or_seg_to_shape", {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None})
TORCH = ("resample_torch_fornnunet", {"is_seg": False, "force_separate_z": None})
NONE = ("no_resampling_hack", {})  # type: ignore[var-annotated]


def plans_of(spacing: list[float], resampling: tuple[str, dict[str, Any]] = DEFAULT, **changes: Any) -> PlansManager:
    name, options = resampling
    setup = {
        "spacing": spacing,
        "patch_size": [8] * len(spacing),
        "architecture": {},
        "resampling_fn_probabilities": name,
        "resampling_fn_probabilities_kwargs": options,
    }
    plans = {
        "label_manager": "LabelManager",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"c": setup},
    }
    return PlansManager({**plans, **changes})


def case(
    predicted: tuple[int, ...],
    cropped: tuple[int, ...],
    spacing: list[float],
    before: int = 0,
    forward: Any = (0, 1, 2),
) -> dict[str, Any]:
    """nnU-Net's properties of an image; `before` voxels were cropped at every side."""
    full = tuple(n + 2 * before for n in cropped)
    back = [list(forward).index(axis) for axis in range(3)]
    written = [full[axis] for axis in back]
    return {
        "sitk_stuff": {
            "spacing": tuple(float(spacing[axis]) for axis in (2, 1, 0)),
            "origin": (0.0, 0.0, 0.0),
            "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        },
        "spacing": spacing,
        "shape_before_cropping": full,
        "bbox_used_for_cropping": [[before, before + n] for n in cropped],
        "shape_after_cropping_and_before_resampling": cropped,
        "predicted": predicted,
        "written": written,
    }


CASES: dict[str, tuple[PlansManager, dict[str, Any]]] = {
    "isotropic": (plans_of([1, 1, 1]), case((9, 10, 11), (14, 9, 16), [0.7, 1.1, 0.7])),
    "separate z": (plans_of([5, 0.8, 0.8]), case((6, 20, 21), (9, 30, 17), [3.2, 0.5, 1.0])),
    "separate z, same slices": (plans_of([5, 0.8, 0.8]), case((6, 20, 21), (6, 30, 17), [5, 0.5, 1.0])),
    "separate y": (plans_of([0.8, 5, 0.8]), case((20, 6, 21), (30, 9, 17), [0.5, 3.2, 1.0])),
    "separate x": (plans_of([0.8, 0.8, 5]), case((20, 21, 6), (30, 17, 9), [0.5, 1.0, 3.2])),
    "cropped": (plans_of([1, 1, 1]), case((9, 10, 11), (14, 9, 16), [0.7, 1.1, 0.7], before=3)),
    "same shape": (plans_of([1, 1, 1]), case((9, 10, 11), (9, 10, 11), [1, 1, 1], before=1)),
    "2D": (plans_of([0.8, 0.8]), case((5, 20, 21), (5, 30, 17), [5, 0.5, 1.0])),
    "transposed": (
        plans_of([1, 1, 1], transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1]),
        case((9, 10, 11), (14, 9, 16), [0.7, 1.1, 0.7], before=2, forward=(1, 2, 0)),
    ),
    "not resampled": (plans_of([1, 1, 1], NONE), case((9, 10, 11), (9, 10, 11), [0.7, 1.1, 0.7])),
}


def logits_of(kind: str, dataset: dict[str, Any], shape: tuple[int, ...]) -> torch.Tensor:
    heads = PlansManager({"label_manager": "LabelManager"}).get_label_manager(dataset).num_segmentation_heads
    generator = np.random.default_rng(len(kind) + heads)
    values = generator.normal(size=(heads, *shape)).astype(np.float16)
    if kind == "ties":
        values = generator.integers(-1, 2, size=(heads, *shape)).astype(np.float16)
        values[values == 0] *= generator.choice([-1, 1], size=int((values == 0).sum())).astype(np.float16)
    if kind == "NaN":
        values[1:, 0] = np.nan
        values[0, 0, ::4] = np.nan
    if kind == "absent":
        # The second class touches the background here and there, the last is nowhere.
        values[1] = np.minimum(values[1], 0 if "regions_class_order" in dataset else values[0])
        values[-1] = -9
    return torch.from_numpy(values)


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("values", ["normal", "ties", "NaN", "absent"])
@pytest.mark.parametrize("dataset", [LABELS, REGIONS, IGNORED], ids=["labels", "regions", "ignore"])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_nnunets_export(tmp_path: Path, name: str, dataset: dict[str, Any], values: str) -> None:
    plans, properties = CASES[name]
    setup = plans.get_configuration("c")
    logits = logits_of(values, dataset, properties["predicted"])
    before = logits.clone()
    assert streams(plans, setup, dataset)
    export_prediction_from_logits(logits.numpy(), properties, setup, plans, dataset, str(tmp_path / "theirs"))
    export(logits, properties, plans, setup, dataset, str(tmp_path / "ours"))
    theirs, ours = (voxels(tmp_path / f"{name}.nii.gz") for name in ("theirs", "ours"))
    assert ours.dtype == theirs.dtype
    assert (ours == theirs).all()
    export(logits, properties, plans, setup, dataset, str(tmp_path / "abreast"), abreast=3)
    assert (voxels(tmp_path / "abreast.nii.gz") == theirs).all()
    assert list(ours.shape) == properties["written"] and len(np.unique(ours)) > 1 - (values == "absent")
    assert torch.equal(logits.nan_to_num(9), before.nan_to_num(9)), "the logits were changed"


def test_probabilities_are_nnunets(tmp_path: Path) -> None:
    plans, properties = CASES["cropped"]
    setup, logits = plans.get_configuration("c"), logits_of("normal", LABELS, (9, 10, 11))
    export_prediction_from_logits(logits, properties, setup, plans, LABELS, str(tmp_path / "theirs"), True, 1)
    export(logits, properties, plans, setup, LABELS, str(tmp_path / "ours"), probabilities=True)
    theirs, ours = (np.load(tmp_path / f"{name}.npz")["probabilities"] for name in ("theirs", "ours"))
    assert np.array_equal(ours, theirs)
    assert (voxels(tmp_path / "ours.nii.gz") == voxels(tmp_path / "theirs.nii.gz")).all()


def test_the_next_stage_of_a_cascade(tmp_path: Path) -> None:
    plans, properties = CASES["isotropic"]
    setup, logits = plans.get_configuration("c"), logits_of("normal", LABELS, (9, 10, 11))
    for name, chosen in (("theirs", (plans, setup)), ("ours", deciding(plans, setup, LABELS))):
        resample_and_save(
            logits, (12, 13, 14), str(tmp_path / name), *chosen, properties, LABELS, 1, nnUNetDatasetNumpy
        )
    theirs, ours = (np.load(tmp_path / f"{name}.npz")["seg"] for name in ("theirs", "ours"))
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


def test_labels_and_resampling_of_others_take_nnunets_way(monkeypatch: pytest.MonkeyPatch) -> None:
    plans, _ = CASES["isotropic"]
    setup = plans.get_configuration("c")

    class Other(LabelManager):  # type: ignore[misc]
        def convert_logits_to_segmentation(self, predicted_logits: Any) -> Any:
            return predicted_logits[0] > 0

    with monkeypatch.context() as patch:
        patch.setattr(PlansManager, "get_label_manager", lambda _, dataset: Other(dataset["labels"], None))
        assert not streams(plans, setup, LABELS)
        assert deciding(plans, setup, LABELS) == (plans, setup)
    odd = plans_of([1, 1, 1], TORCH)
    assert not streams(odd, odd.get_configuration("c"), LABELS)


@pytest.mark.parametrize(
    ("dataset", "resampling", "resampled"),
    [
        # Class 1 exceeds the background in one voxel, class 2 equals it but for one voxel,
        # class 3 has NaN, class 4 is below.
        (LABELS, DEFAULT, [0, 1, 3]),
        (REGIONS, DEFAULT, [0, 2]),
        # Cubic interpolation overshoots: a class may exceed another between voxels where it does not.
        (LABELS, (DEFAULT[0], {**DEFAULT[1], "order": 3}), [0, 1, 2, 3, 4]),
        (LABELS, (DEFAULT[0], {**DEFAULT[1], "order_z": 3}), [0, 1, 2, 3, 4]),
    ],
    ids=["labels", "regions", "cubic", "cubic in z"],
)
def test_only_classes_that_may_be_found_are_resampled(
    dataset: dict[str, Any], resampling: tuple[str, dict[str, Any]], resampled: list[int]
) -> None:
    plans = plans_of([1, 1, 1], resampling)
    setup = deciding(plans, plans.get_configuration("c"), dataset)[1]
    heads = plans.get_label_manager(dataset).num_segmentation_heads
    logits = np.zeros((heads, 4, 4, 4), np.float16)
    if "regions_class_order" in dataset:
        logits[1], logits[2, 1, 1, 1] = -1, 0.001
    else:
        logits[0, 3, 3, 3] = 1
        logits[1], logits[1, 1, 1, 1], logits[3], logits[3, 0, 0, 0], logits[4] = -1, 1, -1, np.nan, -1
    numbers: list[int] = []

    def counted(part: np.ndarray, *where: Any) -> np.ndarray:
        numbers.extend(n for n in range(heads) if np.array_equal(part[0], logits[n], equal_nan=True))
        resampled: np.ndarray = real(part, *where)
        return resampled

    real = setup.resampling_fn_probabilities.__self__._real.resampling_fn_probabilities
    counted.func, counted.keywords = real.func, real.keywords  # type: ignore[attr-defined]
    setup._real = type("Real", (), {"resampling_fn_probabilities": staticmethod(counted)})()
    setup.resampling_fn_probabilities(logits, (6, 6, 6), [1, 1, 1], [0.7, 0.7, 0.7])
    assert numbers == resampled


def test_memory_does_not_grow_with_the_number_of_classes(tmp_path: Path) -> None:
    plans, _ = CASES["isotropic"]
    setup = plans.get_configuration("c")
    properties = case((24, 24, 24), (64, 64, 64), [0.4, 0.4, 0.4])
    peaks = []
    for classes in (3, 60):
        dataset = {"labels": {"background": 0, **{f"c{n}": n for n in range(1, classes)}}, "file_ending": ".nii.gz"}
        logits = logits_of("normal", dataset, (24, 24, 24))
        logits[1:, 0, 0, 0] = 9  # none is absent
        tracemalloc.start()
        try:
            export(logits, properties, plans, setup, dataset, str(tmp_path / "made"))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1
