"""Data of real users through the real commands: trained in voxel order, stopped, resumed, and used to predict."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import Ppgs, run_ppgs, start
from tests.helpers.datasets import MIRRORED, dataset, pictures, read, voxels, write
from tests.helpers.runs import events, manifest

SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--batch-size", "2", "--device", "cpu")
QUIET = ("--no-tui", "--no-energy")

TRAINER = """
import os
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class Spoiled(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, *arguments):
        return self.loss(*arguments) * float(os.environ["FACTOR"])


class Lab(nnUNetTrainer):
    def _build_loss(self):
        return Spoiled(super()._build_loss())
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases with their own folds, no numTraining, a Mac's files, and labels that are stored mirrored."""
    root = tmp_path_factory.mktemp("cases")
    folder = dataset(root / "nnUNet_raw", cases="abcd", numTraining=None)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    for path in list((folder / "labelsTr").iterdir()):
        write(read(path), path, direction=MIRRORED)
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(100))
        (path.parent / ".DS_Store").write_bytes(b"xx")
    (root / "trainers").mkdir()
    (root / "trainers" / "lab.py").write_text(TRAINER)
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    """A run that a loss of NaN stopped before its first step, and that was then resumed to its end."""
    options = ("--geometry", "voxel", "--trainer", "Lab", *SHORT, *QUIET)
    environ = {"nnUNet_extTrainer": str(root / "trainers")}
    done = run_ppgs("train", "42", "--root", root, *options, environ=environ | {"FACTOR": "nan"})
    assert done.returncode == 75, done.stderr
    assert "the loss became nan" in done.stderr and "--skip-nonfinite" in done.stderr
    (run,) = root.glob("nnUNet_results/*/*/fold_0")
    assert manifest(run)["status"] == "stopped"
    assert "Traceback" not in (run / "ppgs" / "train.log").read_text()
    done = run_ppgs("resume", run, *QUIET[:1], environ=environ | {"FACTOR": "1"})
    assert done.returncode == 0, done.stderr
    return run


def test_it_trains_in_voxel_order(run: Path) -> None:
    assert manifest(run)["status"] == "finished"
    assert manifest(run)["request"]["geometry"] == "voxel"
    assert [path.name for path in (run / "validation").glob("*.nii.gz")] == ["c.nii.gz"]
    assert events(run)[-1]["type"] == "run_finished"


def test_odd_names_and_labels_among_the_images_to_predict(run: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    images = tmp_path / "images"
    for name in ("a_0000.nii.gz", "b_0000.nii.gz", "c_2021.nii.gz", "p_0000.nii.gz", "d_0000.nii", "e_0000.nrrd"):
        write(voxels(60)[0], images / name)
    write(voxels(60)[1], images / "p.nii.gz")
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    environ = {
        "PPGS_CACHE": str(tmp_path / "cache"),
        "FACTOR": "1",
        "nnUNet_extTrainer": str(run.parents[3] / "trainers"),
    }
    for target in (images, tmp_path / "one.nii"):
        done = ppgs("predict", run, "-i", images, "-o", target, "--device", "cpu", environ=environ)
        assert done.returncode == 2, done.stderr
    done = ppgs("predict", run, "-i", images, "-o", tmp_path / "out", "--device", "cpu", environ=environ)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{name}.nii.gz" for name in ("a", "b", "c_2021", "p")}
    assert all(name in done.stderr for name in ("d_0000.nii", "e_0000.nrrd", "p.nii.gz"))
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_colour_pictures_are_trained_on_and_predicted(tmp_path: Path, ppgs: Ppgs) -> None:
    folder = pictures(tmp_path / "nnUNet_raw", colours=True)
    done = ppgs("train", "43", "--root", tmp_path, "--configuration", "2d", *SHORT, *QUIET)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("nnUNet_results/*/*/fold_0")
    picture = folder / "imagesTr" / "p0_0000.png"
    done = ppgs("predict", run, "-i", picture, "-o", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p0.png"]


def test_a_worker_that_is_killed_ends_a_preparation_that_can_be_repeated(tmp_path: Path) -> None:
    dataset(tmp_path / "nnUNet_raw")
    process = start({}, "prepare", "42", "--root", str(tmp_path))
    assert process.stderr is not None
    said = ""
    while "taking the fingerprint" not in said:
        said += process.stderr.readline()
        assert process.poll() is None, said
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(process.pid).children():
                worker.kill()
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 75, said + rest
    assert "was killed by SIGKILL while it worked on" in rest and "_0000.nii.gz" in rest


def test_a_mirrored_channel_costs_its_image_alone_and_a_tmpdir_too_long_for_sockets_nothing(
    tmp_path: Path, ppgs: Ppgs
) -> None:
    dataset(tmp_path / "nnUNet_raw", cases="abcde", channels=2)
    images, place = tmp_path / "images", tmp_path / ("x" * 100)
    place.mkdir()
    environ = {"PPGS_CACHE": str(tmp_path / "cache"), "TMPDIR": str(place)}
    done = ppgs("train", "42", "--root", tmp_path, *SHORT, *QUIET, "--workers", "1", environ=environ)
    assert done.returncode == 0, done.stderr
    for name, place_of in (("good", {}), ("mirrored", {"direction": MIRRORED})):
        write(voxels(60)[0], images / f"{name}_0000.nii.gz")
        write(voxels(60)[0] + 1, images / f"{name}_0001.nii.gz", **place_of)
    (run,) = tmp_path.glob("nnUNet_results/*/*/fold_0")
    done = ppgs("predict", run, "-i", images, "-o", tmp_path / "out", "--device", "cpu", environ=environ)
    assert done.returncode == 2, done.stderr
    assert "not on the grid" in done.stderr and "mirrored_0001.nii.gz" in done.stderr
    assert "good_0001.nii.gz" not in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.nii.gz"]
