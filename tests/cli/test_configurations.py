"""2d, cascades, regions with an ignore label, several channels, anisotropic images, custom splits, fold `all`.

One small task has them all. `benchmarks/matrix.py` is the whole matrix, on real images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk

from tests.conftest import Ppgs, run_ppgs

TASK = "Dataset007_Both"
SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--workers", "0")
SHORT += ("--no-energy", "--no-tui")  # type: ignore[assignment]


def make_raw(folder: Path) -> None:
    """Six cases of 12 x 40 x 40 voxels, 4 x 1 x 1 mm, two channels; one slice in four is not annotated."""
    rng = np.random.default_rng(3)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(7):
        labels = np.zeros((12, 40, 40), np.uint8)
        z, y, x = rng.integers((2, 6, 6), (5, 14, 14))
        labels[z : z + 6, y : y + 18, x : x + 18] = 1
        labels[z + 2 : z + 5, y + 4 : y + 12, x + 4 : x + 12] = 2
        channels = [(labels * 60 + rng.normal(0, 15, labels.shape)).astype(np.float32) for _ in range(2)]
        labels[::4] = 3
        files = {f"images{'Tr' if number < 6 else 'Ts'}/case{number}_{c:04d}": v for c, v in enumerate(channels)}
        for path, voxels in (files | ({f"labelsTr/case{number}": labels} if number < 6 else {})).items():
            image = sitk.GetImageFromArray(voxels)
            image.SetSpacing((1.0, 1.0, 4.0))
            sitk.WriteImage(image, str(folder / f"{path}.nii.gz"))
    content = {
        "channel_names": {"0": "CT", "1": "MRI"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def change_plans(folder: Path) -> None:
    """Small networks, a low resolution and a cascade."""
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    sections = plans["configurations"]
    for name in ("2d", "3d_fullres"):
        arguments = sections[name]["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [min(f // 8, 8) for f in arguments["features_per_stage"]]
        sections[name]["batch_size"] = 2
    sections["3d_lowres"] = {
        "inherits_from": "3d_fullres",
        "data_identifier": "nnUNetPlans_3d_lowres",
        "spacing": [4.0, 2.0, 2.0],
        "next_stage": "3d_cascade_fullres",
    }
    sections["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    names = [f"case{n}" for n in range(6)]
    splits = [{"train": names[3:], "val": names[:3]}, {"train": names[:3], "val": names[3:]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("configurations")
    make_raw(root / "nnUNet_raw" / TASK)
    done = run_ppgs("prepare", "7", "--root", root)
    assert done.returncode == 0, done.stderr
    change_plans(root / "nnUNet_preprocessed" / TASK)
    return root


def model(root: Path, configuration: str) -> Path:
    return root / "nnUNet_results" / TASK / f"nnUNetTrainerPPGS_constant__nnUNetPlans__{configuration}"


@pytest.fixture(scope="module")
def cascade(root: Path) -> Path:
    """Both stages trained on all cases; the first stage's own segmentations of them are kept aside."""
    done = run_ppgs("train", "7", "--configuration", "3d_lowres", "--fold", "all", *SHORT, "--root", root)
    assert done.returncode == 0, done.stderr
    made = model(root, "3d_lowres") / "predicted_next_stage"
    made.rename(made.with_name("by_validation"))
    done = run_ppgs("train", "7", "--configuration", "3d_cascade_fullres", "--fold", "all", *SHORT, "--root", root)
    assert done.returncode == 0, done.stderr
    return model(root, "3d_cascade_fullres")


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ppgs" / "events.jsonl").read_text().splitlines()]


def voxels(path: Path) -> Any:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_second_stage_without_its_first_is_told_how_to_get_it(root: Path, ppgs: Ppgs) -> None:
    done = ppgs("train", "7", "--configuration", "3d_cascade_fullres", *SHORT, "--name", "early", "--root", root)
    assert done.returncode == 4
    assert "fold 0,1" in done.stderr
    told = "ppgs train 7 --configuration 3d_lowres --schedule constant --name early --root"
    assert f"{told} {root} --fold 0,1" in " ".join(done.stderr.split())
    assert not list((root / "nnUNet_results").glob("**/*early*"))


def test_a_first_stages_segmentations_are_made_as_its_validation_makes_them(cascade: Path) -> None:
    first = cascade.with_name(cascade.name.replace("3d_cascade_fullres", "3d_lowres"))
    ours, theirs = (first / name / "3d_cascade_fullres" for name in ("predicted_next_stage", "by_validation"))
    names = sorted(p.name for p in theirs.iterdir())
    assert names == [f"case{n}.b2nd" for n in range(6)] == sorted(p.name for p in ours.iterdir() if p.suffix == ".b2nd")
    for name in names:
        mine, validated = (blosc2.open(urlpath=str(folder / name), mode="r")[:] for folder in (ours, theirs))
        assert (mine == validated).all() and mine.shape == (12, 40, 40)
    assert any(blosc2.open(urlpath=str(theirs / name), mode="r")[:].any() for name in names)


def test_a_cascade_predicts_as_stock_nnunet_does(cascade: Path, root: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    images = root / "nnUNet_raw" / TASK / "imagesTs"
    environ = {n: str(root / n) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

    def stock(configuration: str, *more: str) -> Path:
        command = shutil.which("nnUNetv2_predict", path=str(Path(sys.executable).parent)) or "missing"
        trainer, target = cascade.name.split("__")[0], tmp_path / f"stock {configuration}"
        done = subprocess.run(
            [
                *(command, "-d", "7", "-c", configuration, "-tr", trainer, "-f", "all", "-i", images, "-o", target),
                *("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar", *more),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, **environ},
        )
        assert done.returncode == 0, done.stderr
        return target

    first = stock("3d_lowres")
    expected = voxels(stock("3d_cascade_fullres", "-prev_stage_predictions", first) / "case6.nii.gz")  # type: ignore[arg-type]
    for number, given in enumerate(((), ("--previous-stage", first), ("--previous-stage", model(root, "3d_lowres")))):
        out = tmp_path / str(number)
        done = ppgs("predict", cascade, "-i", images, "-o", out, "--device", "cpu", *given, environ=environ)
        assert done.returncode == 0, done.stderr
        assert (voxels(out / "case6.nii.gz") == expected).all()
        assert [p.name for p in out.iterdir()] == ["case6.nii.gz"]


def test_what_does_not_fit_as_a_first_stage_is_told(cascade: Path, root: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    images, empty = root / "nnUNet_raw" / TASK / "imagesTs", tmp_path / "empty"
    empty.mkdir()
    common = ("-i", images, "-o", tmp_path / "out", "--device", "cpu", "--root", root)
    done = ppgs("predict", cascade, *common, "--previous-stage", empty)
    assert done.returncode == 2 and "previous stage's segmentation is missing" in done.stderr
    done = ppgs("predict", cascade, *common, "--previous-stage", cascade)
    assert done.returncode == 2 and "3d_cascade_fullres follows 3d_lowres" in done.stderr
    done = ppgs("predict", model(root, "3d_lowres"), *common, "--previous-stage", empty)
    assert done.returncode == 2 and "no cascade's second stage" in done.stderr


@pytest.mark.parametrize("configuration", ["3d_lowres", "3d_cascade_fullres"])
def test_those_who_watch_get_pictures(cascade: Path, root: Path, configuration: str) -> None:
    run = model(root, configuration) / "fold_all"
    assert [r["message"] for r in records_of(run) if r["type"] == "warning"] == []
    (told,) = [r for r in records_of(run) if r["type"] == "slice_written"]
    assert (run / "ppgs" / "slices" / told["file"]).is_file()
    assert len(told["slice_dice"]) == 2


def test_2d_grows_its_patch_and_keeps_probabilities(root: Path, ppgs: Ppgs) -> None:
    asked = ("--schedule", "efficiency", "--epochs", "12", *SHORT[4:], "--npz", "--fold", "1")
    done = ppgs("train", "7", "--configuration", "2d", *asked, "--root", root)
    assert done.returncode == 0, done.stderr
    (run,) = (root / "nnUNet_results" / TASK).glob("*efficiency*__2d/fold_1")
    records = records_of(run)
    patches = [r["patch_size"] for r in records if r["type"] == "stage_started"]
    assert len([r for r in records if r["type"] == "slice_written"]) >= len(patches)
    assert len(patches) > 2 and all(len(p) == 2 for p in patches) and patches[0] < patches[-1]
    assert set(next(r["dice"] for r in records if r["type"] == "validation_finished")) == {"whole", "core"}
    for case in ("case3", "case4", "case5"):
        assert np.load(run / "validation" / f"{case}.npz")["probabilities"].shape == (2, 12, 40, 40)
