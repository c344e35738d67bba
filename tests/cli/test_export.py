"""An exported model is stock nnU-Net's own: the same files, the same weights, and it works without ppgs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ppgs import upstream
from tests.conftest import Ppgs

OURS = "nnUNetTrainerPPGS_efficiency__nnUNetPlans__3d_fullres"
PLACE = "Dataset999_Demo/nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture(scope="module")
def two_folds(trained_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnUNet_results with two finished folds of one model; the second is a copy of the first."""
    results = tmp_path_factory.mktemp("export") / "nnUNet_results"
    shutil.copytree(trained_demo.parents[2], results)
    (first,) = results.glob("*/*/fold_0")
    second = first.with_name("fold_1")
    shutil.copytree(first, second)
    manifest = json.loads((second / "ppgs" / "run.json").read_text())
    manifest |= {"fold": 1, "name": "demo-efficiency-fold1"}
    (second / "ppgs" / "run.json").write_text(json.dumps(manifest))
    return results


@pytest.fixture(scope="module")
def exported(two_folds: Path) -> Path:
    from tests.conftest import run_ppgs

    target = two_folds.parent / "model.zip"
    done = run_ppgs("export", "demo-efficiency", "-o", target, "--root", two_folds.parent, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(m["folder"], m["folds"]) for m in told["models"]] == [(PLACE, ["0", "1"])]
    return target


@pytest.fixture(scope="module")
def stock_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another virtual environment with all that is installed here except ppgs."""
    venv = tmp_path_factory.mktemp("stock")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())  # type: ignore[arg-type]
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if "ppgs" not in item.name.lower():
            (site / item.name).symlink_to(item)
    without = subprocess.run([python, "-I", "-c", "import ppgs"], capture_output=True, text=True, cwd=venv)
    assert "No module named 'ppgs'" in without.stderr
    return python


def test_it_has_the_files_of_nnunets_own_export(
    two_folds: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = (two_folds / "Dataset999_Demo").iterdir()
    stock = tmp_path / "Dataset999_Demo" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    stock.parent.mkdir()
    stock.symlink_to(model)
    for name in ("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path))
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    export_pretrained_model("Dataset999_Demo", str(tmp_path / "stock.zip"), ("3d_fullres",), folds=(0, 1))
    ours, theirs = zipfile.ZipFile(exported).namelist(), zipfile.ZipFile(tmp_path / "stock.zip").namelist()
    # debug.json contains the machine's name and folders; nothing reads it.
    theirs = [name for name in theirs if not name.endswith("debug.json")]
    assert sorted(ours) == sorted([*theirs, f"{PLACE}/model_card.md"])


def test_weights_are_bit_equal_and_nothing_of_ours_is_left(exported: Path, trained_demo: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(tmp_path)
    content = torch.load(tmp_path / PLACE / "fold_1" / "checkpoint_final.pth", weights_only=True)
    assert content.keys() == upstream.CHECKPOINT_KEYS
    assert content["trainer_name"] == "nnUNetTrainer"
    ours = torch.load(trained_demo / "checkpoint_final.pth", weights_only=True)["network_weights"]
    assert all(torch.equal(content["network_weights"][k], ours[k]) for k in ours)
    texts = [p for p in (tmp_path / PLACE).rglob("*") if p.suffix in (".json", ".md")]
    assert len(texts) == 6
    for text in texts:
        assert str(trained_demo.parents[3]) not in text.read_text(), text
        assert not re.search(r'"/\w+/', text.read_text()), text


def test_the_model_card_tells_what_the_run_tells(exported: Path, trained_demo: Path) -> None:
    card = zipfile.ZipFile(exported).read(f"{PLACE}/model_card.md").decode()
    summary = json.loads((trained_demo / "validation" / "summary.json").read_text())
    dice = [f"{summary['mean'][key]['Dice']:.4f}" for key in ("1", "2")]
    assert f"| {dice[0]} | {dice[1]} |" in card
    assert "| pooled | 10 |" in card
    assert "organ (1), lesion (2)" in card
    assert "10 epochs of 3 iterations in 10 stages" in card and "| 10 | 32x32x32 | 2 | 1 | 50% |" in card
    assert "nnunetv2 2.8" in card and "training time" in card
    assert "nnUNetv2_predict -d Dataset999_Demo -p nnUNetPlans -f 0 1 -c 3d_fullres" in card


def test_stock_nnunet_without_ppgs_predicts_the_same_voxels(
    two_folds: Path, exported: Path, stock_python: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())[:2]:
        shutil.copy(path, images)
    done = ppgs(
        *("predict", two_folds / "Dataset999_Demo" / OURS),
        *("-i", images, "-o", tmp_path / "ours", "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ |= {name: str(elsewhere) for name in ("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed")}
    for module, function, arguments in (
        ("nnunetv2.model_sharing.entry_points", "install_from_zip_entry_point", [exported]),
        (
            "nnunetv2.inference.predict_from_raw_data",
            "predict_entry_point",
            [
                *("-d", "Dataset999_Demo", "-c", "3d_fullres", "-f", "0", "1", "-i", images, "-o", tmp_path / "stock"),
                *("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar"),
            ],
        ),
    ):
        command = [stock_python, "-c", f"from {module} import {function} as run; run()", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "ours").iterdir():
        mine, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (path, tmp_path / "stock" / path.name))
        assert (mine == theirs).all()
    assert len(list((tmp_path / "ours").iterdir())) == 2


def test_a_model_without_a_run_of_ppgs_segments_as_the_run_does(
    two_folds: Path, exported: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    (image, *_) = sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())
    with zipfile.ZipFile(exported) as archive:
        archive.extractall(tmp_path)
    # As stock nnU-Net writes its log.
    checkpoint = tmp_path / PLACE / "fold_1" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    content["logging"]["ema_fg_dice"] = [np.float64(0.5)]
    torch.save(content, checkpoint)
    for model, name in ((two_folds / "Dataset999_Demo" / OURS, "run"), (tmp_path / PLACE, "stock")):
        out = tmp_path / f"{name}.nii.gz"
        done = ppgs("predict", model, "-i", image, "-o", out, "--device", "cpu", "--no-mirroring", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["folds"] == ["0", "1"]
        assert [Path(file).relative_to(model).parent.name for file in told["checkpoints"]] == ["fold_0", "fold_1"]
    mine, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{n}.nii.gz"))) for n in ("run", "stock"))
    assert (mine == theirs).all()
    absent = ppgs("predict", tmp_path / PLACE, "--fold", "2", "-i", image, "-o", tmp_path / "new.nii.gz")
    assert absent.returncode == 4 and "fold_2" in absent.stderr
    again = ppgs("export", tmp_path / PLACE, "-o", tmp_path / "again.zip")
    assert again.returncode == 4 and "no run of ppgs" in again.stderr


def test_what_cannot_be_exported_is_told(two_folds: Path, exported: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    root = two_folds.parent
    again = ppgs("export", "demo-efficiency-fold0", "-o", exported, "--root", root)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    copy = tmp_path / "nnUNet_results"
    shutil.copytree(two_folds, copy)
    (model,) = (copy / "Dataset999_Demo").iterdir()
    shutil.copytree(model, model.with_name(model.name.replace("efficiency", "other")))
    clash = ppgs("export", *(copy / "Dataset999_Demo").iterdir(), "-o", tmp_path / "a.zip", "--root", tmp_path)
    assert clash.returncode == 2 and "one name" in clash.stderr
    (model / "fold_1" / "checkpoint_final.pth").unlink()
    unfinished = ppgs("export", model, "-o", tmp_path / "a.zip", "--root", tmp_path)
    assert unfinished.returncode == 4 and "fold_1" in unfinished.stderr
    assert ppgs("export", "nothing", "-o", tmp_path / "a.zip", "--root", tmp_path).returncode == 4
    assert not (tmp_path / "a.zip").exists()
