"""Messages of `resume` for runs that it cannot continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.resume import check_free, check_resumable
from ppgs.errors import RunError
from ppgs.runs.folder import TRAINER, RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import find_run
from ppgs.schedule import Schedule, Stage, dump
from tests.helpers.made_runs import made


@pytest.mark.parametrize("epochs", [None, 2, 2000])
def test_a_finished_run_says_how_to_train_longer(tmp_path: Path, epochs: int | None) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "finished", trainer=f"{TRAINER}_efficiency")
    stages = (Stage(patch_size=(8, 8, 8), batch_size=2, epochs=7),)
    run.schedule.write_text(dump(Schedule(name="efficiency", iterations_per_epoch=3, stages=stages)))
    with pytest.raises(RunError, match="is finished") as caught:
        check_resumable(run, epochs)
    problem = caught.value.problems[0]
    assert "ppgs train" in problem.remedy and "--name" in problem.remedy
    if epochs is not None:
        assert "7 epochs" in problem.what and "--epochs" in problem.what
        assert f"--epochs {epochs}" in problem.remedy


def test_results_whose_dataset_is_a_link_are_in_their_place(tmp_path: Path) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped", trainer=f"{TRAINER}_efficiency")
    dataset = tmp_path / "Dataset001_A"
    dataset.rename(tmp_path / "on_another_disk")
    dataset.symlink_to("on_another_disk")
    found = find_run("A-efficiency-fold0", tmp_path)
    check_free(found, read_manifest(found))
    dataset.rename(tmp_path / "Dataset002_B")
    moved = find_run("A-efficiency-fold0", tmp_path)
    with pytest.raises(RunError, match="moved or renamed"):
        check_free(moved, read_manifest(moved))
