"""`--pretrained`: which file is meant, and the copy that the run starts from."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from ppgs.commands.pretrained import find_weights, keep_weights, plans_in
from ppgs.errors import BadInput, NoCheckpoint, NoSuchRun
from ppgs.runs.folder import TRAINER, RunFolder
from tests.helpers.made_runs import made

MODEL = "Dataset001_A/nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.place(tmp_path / "results", "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 1)
    made(run, "A-efficiency-fold1", "stopped", trainer=f"{TRAINER}_efficiency")
    return run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(f"{MODEL}/plans.json", json.dumps({"plans_name": "nnUNetPlans"}))
        for fold in (1, 0):
            opened.writestr(f"{MODEL}/fold_{fold}/checkpoint_final.pth", f"weights of {fold}")
    return path


def test_a_run_means_its_last_checkpoint(run: RunFolder) -> None:
    results = run.results
    with pytest.raises(NoCheckpoint):
        find_weights("A-efficiency-fold1", results)
    for name in ("latest", "final"):
        run.checkpoint(name).write_bytes(b"weights")
        assert find_weights("A-efficiency-fold1", results) == run.checkpoint(name).resolve()
        assert find_weights(str(run.path), results) == run.checkpoint(name).resolve()
    with pytest.raises(NoSuchRun):
        find_weights("B-efficiency-fold1", results)
    with pytest.raises(BadInput, match="no such file"):
        find_weights("gone.pth", results)


def test_a_fold_of_stock_nnunet_is_known_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_best.pth").touch()
    assert find_weights(str(tmp_path / "fold_0"), tmp_path).name == "checkpoint_best.pth"


def test_the_run_keeps_what_it_starts_from(run: RunFolder, archive: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint_final.pth"
    source.write_bytes(b"the weights")
    keep_weights(find_weights(str(source), tmp_path), run)
    source.unlink()
    assert run.pretrained.read_bytes() == b"the weights"
    # Of a zip the same fold, else the first.
    keep_weights(find_weights(str(archive), tmp_path), run)
    assert run.pretrained.read_bytes() == b"weights of 1"
    other = RunFolder(run.path.with_name("fold_4"))
    other.own.mkdir(parents=True)
    keep_weights(archive, other)
    assert other.pretrained.read_bytes() == b"weights of 0"
    assert plans_in(archive) == {"plans_name": "nnUNetPlans"}


def test_zips_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(BadInput, match="no zip"):
        find_weights(str(path), tmp_path)
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("readme.txt", "")
    with pytest.raises(BadInput, match="no checkpoint"):
        find_weights(str(path), tmp_path)
    with zipfile.ZipFile(path, "w") as opened:
        for model in ("a", "b"):
            opened.writestr(f"D/{model}/fold_0/checkpoint_final.pth", "")
    with pytest.raises(BadInput, match="several models"):
        find_weights(str(path), tmp_path)
