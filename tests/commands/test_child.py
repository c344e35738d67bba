"""Fate of a run's folder when its training process fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ppgs.commands.train.child import TrainingChild
from ppgs.errors import BadInput, PpgsError
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots
from tests.helpers.made_runs import made


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (BadInput("no such plans", "", "give others"), False),
        (PpgsError("TypeError: oops", "", "the log has the details"), True),
    ],
    ids=["a mistake of the user", "a fault of ppgs"],
)
def test_a_run_that_never_began_is_kept_only_for_its_log(
    error: PpgsError, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "failed", error=error.to_record())
    monkeypatch.setattr(sys, "executable", "false")
    roots = Roots.choose(tmp_path, {})
    child = TrainingChild(run, roots, detached=True)
    while child.process.poll() is None:
        time.sleep(0.01)
    with pytest.raises(PpgsError, match=error.problems[0].what):
        child.raise_failure()
    assert run.log.is_file() == kept
