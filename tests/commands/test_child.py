"""The process of a training as its command sees it: new records, and how it ended."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from ppgs.commands.train.child import TrainingChild
from ppgs.errors import BadInput, PpgsError
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots
from tests.helpers.made_runs import made


def test_records_of_an_earlier_process_are_not_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a log that is longer than what is read of it in one piece."""
    run = made(RunFolder(tmp_path / "fold_0"), "A-efficiency-fold0", "stopped")
    kinds = ("run_started", *["warning"] * 5000)
    lines = [json.dumps({"seq": n, "type": kind, "_": "x" * 1000}) + "\n" for n, kind in enumerate(kinds)]
    run.events.write_text("".join(lines))
    assert run.events.stat().st_size > 5_000_000
    monkeypatch.setattr(sys, "executable", "true")
    child = TrainingChild(run, Roots.choose(tmp_path, {}), detached=True)
    assert child.news() == []
    with run.events.open("a") as log:
        log.write(json.dumps({"seq": len(kinds), "type": "run_finished"}) + "\n")
    assert [r["type"] for r in child.news()] == ["run_finished"]
    child.process.wait()


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
