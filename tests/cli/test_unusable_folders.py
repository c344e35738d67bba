"""Folders that are files, links in a circle or to nowhere, closed or read-only: said by name, by every command."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ppgs.runs.folder import RunFolder
from tests.helpers.commands import Result, in_process, run_ppgs
from tests.helpers.datasets import dataset
from tests.helpers.made_runs import made
from tests.helpers.permissions import run_unprivileged

TRAIN = ("--device", "cpu", "--no-tui", "--no-energy", "--epochs", "1", "--iterations", "1", "--schedule", "constant")
DATASET = "nnUNet_raw/Dataset042_Small"
RUN = "nnUNet_results/Dataset042_Small/nnUNetTrainerPPGS_efficiency__nnUNetPlans__3d_fullres/fold_0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset, and a run that has begun."""
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    dataset(root / "nnUNet_raw")
    made(RunFolder(root / RUN), "a", "stopped", dataset="Dataset042_Small")
    (root / "nnUNet_preprocessed").mkdir()
    return root


def told(done: Result, code: int, *texts: object) -> None:
    assert done.returncode == code, done.stderr
    for text in texts:
        assert str(text) in done.stderr + done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def file(path: Path) -> str:
    path.write_text("")
    return "is a file, not a folder"


def circle(path: Path) -> str:
    path.symlink_to(path.name)
    return "links lead in a circle"


def nowhere(path: Path) -> str:
    path.symlink_to("unmounted")
    return "leads nowhere (unmounted)"


SPOILED = pytest.mark.parametrize("spoil", [file, circle, nowhere])
Spoil = Callable[[Path], str]


@SPOILED
def test_results(root: Path, spoil: Spoil, tmp_path: Path) -> None:
    results = root / "nnUNet_results"
    shutil.rmtree(results)
    said = spoil(results)
    for line in (
        *(["runs"], ["resume"], ["resume", "a"], ["stop", "a"], ["validate", "a"], ["compare", "a", "b"]),
        *(["predict", "a", "-i", root / DATASET / "imagesTr", "-o", tmp_path / "o"], ["monitor", "a"]),
        *(["export", "a", "-o", tmp_path / "a.zip"], ["train", "42", "--fold", "all", *TRAIN]),
    ):
        told(in_process(*line, "--root", root), 2, said, results)


@SPOILED
@pytest.mark.parametrize("name", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_folders_of_data(root: Path, name: str, spoil: Spoil) -> None:
    shutil.rmtree(root / name)
    said = spoil(root / name)
    for task in ("42", "demo"):
        for line in (["prepare", task], ["train", task, *TRAIN]):
            told(in_process(*line, "--root", root), 2, said, root / name)


@SPOILED
def test_the_root_itself(tmp_path: Path, spoil: Spoil) -> None:
    spoil(tmp_path / "root")
    for line in (["runs"], ["resume"], ["prepare", "demo"], ["prepare", "42"], ["train", "demo", *TRAIN]):
        told(in_process(*line, "--root", tmp_path / "root"), 2, tmp_path / "root")


@pytest.mark.parametrize("spoil", [circle, nowhere])
@pytest.mark.parametrize("name", ["", "imagesTr", "labelsTr", "dataset.json"])
def test_parts_of_a_dataset(root: Path, name: str, spoil: Spoil) -> None:
    path = root / DATASET / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    spoil(path)
    for line in (["prepare", "42"], ["train", "42", *TRAIN]):
        told(in_process(*line, "--root", root), 2, path.name)


def test_links_among_images_and_labels(root: Path) -> None:
    for name, spoil in (("imagesTr/c_0000.nii.gz", circle), ("imagesTr/d_0000.nii.gz", nowhere)):
        (root / DATASET / name).unlink()
        spoil(root / DATASET / name)
    (root / DATASET / "labelsTr/e.nii.gz").unlink()
    nowhere(root / DATASET / "labelsTr/e.nii.gz")
    told(in_process("prepare", "42", "--root", root), 2, "c_0000.nii.gz, d_0000.nii.gz", "e.nii.gz", "lead nowhere")


@pytest.mark.parametrize("name", ["", "imagesTr", "labelsTr", "dataset.json", "splits_final.json"])
def test_closed_parts_of_a_dataset(root: Path, name: str) -> None:
    (root / DATASET / "splits_final.json").write_text("[]")
    path = root / DATASET / name
    path.chmod(0)
    done = run_unprivileged("train", "42", *TRAIN, "--root", root)
    told(done, 2, "ermission", path)
    assert "remove the file" not in done.stderr or name != "splits_final.json"


@pytest.mark.parametrize("command", ["prepare", "doctor"])
def test_closed_images_and_labels(root: Path, command: str) -> None:
    paths = [root / DATASET / name for name in ("imagesTr/c_0000.nii.gz", "labelsTr/d.nii.gz")]
    for path in paths:
        path.chmod(0)
    told(run_unprivileged(command, "42", "--root", root), 2, "ermission denied", *paths)


@pytest.mark.parametrize("depth", range(6))
def test_closed_runs_are_not_passed_over_in_silence(root: Path, depth: int) -> None:
    path = (root / RUN / "ppgs/run.json", *(root / RUN / "ppgs/run.json").parents)[depth]
    path.chmod(0)
    code = 2 if path.name == "nnUNet_results" else 4
    told(run_unprivileged("runs", "--root", root), 2 if code == 2 else 0, "ermission denied", path)
    told(run_unprivileged("resume", "--root", root), code, "permission", path)
    told(run_unprivileged("resume", "a", "--root", root), code, "permission", path)


def test_the_doctor_names_folders_that_cannot_be_used(root: Path) -> None:
    shutil.rmtree(root / "nnUNet_results")
    shutil.rmtree(root / "nnUNet_preprocessed")
    circle(root / "nnUNet_results")
    nowhere(root / "nnUNet_preprocessed")
    told(run_ppgs("doctor", "--root", root), 2, "links lead in a circle", "leads nowhere (unmounted)")


@pytest.fixture
def read_only_root(read_only: Path, root: Path) -> Iterator[Path]:
    import subprocess

    subprocess.run(["mount", "-o", "remount,rw,size=8m", str(read_only)], check=True)
    shutil.copytree(root, read_only, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    yield read_only


def test_a_read_only_root(read_only_root: Path) -> None:
    root = read_only_root
    for task in ("42", "demo"):
        told(run_ppgs("prepare", task, "--root", root), 2, "ead-only file system", root)
        told(run_ppgs("train", task, "--fold", "all", *TRAIN, "--root", root), 2, "ead-only file system", root)
    told(run_ppgs("doctor", "42", "--root", root), 2, "cannot be written")
    told(run_ppgs("runs", "--root", root), 0, "stopped")


def test_links_among_the_images_to_predict(root: Path, tmp_path: Path) -> None:
    from ppgs.errors import BadInput
    from ppgs.nnunet.images.inputs import find_inputs

    images = root / DATASET / "imagesTr"
    for name, spoil in (("x_0000.nii.gz", circle), ("y_0000.nii.gz", nowhere)):
        spoil(images / name)
    found = find_inputs(images, 1, ".nii.gz")
    assert [image.name for image in found.images] == list("abcdef")
    assert {one.file.name: "leads nowhere" in one.reason for one in found.skipped} == {
        "x_0000.nii.gz": True,
        "y_0000.nii.gz": True,
    }
    nowhere(tmp_path / "dead")
    with pytest.raises(BadInput, match="leads nowhere"):
        find_inputs(tmp_path / "dead", 1, ".nii.gz")


def test_a_closed_checkpoint_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ppgs.errors import RunError
    from ppgs.nnunet.checkpoints.files import load_checkpoint

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(RunError, match="permission denied"):
        load_checkpoint(tmp_path)
