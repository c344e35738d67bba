"""Messages of `resume` for runs that it cannot continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.resume import check_resumable
from ppgs.errors import RunError
from ppgs.runs.folder import TRAINER, RunFolder
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
