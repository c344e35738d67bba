"""The process of a training as its command sees it: new records, and how it ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ppgs import api
from ppgs.commands.train.child import TrainingChild
from ppgs.errors import BadInput, NonFiniteLoss, PpgsError, RunError, StoppedEarly
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest
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


def ended(run: RunFolder, monkeypatch: pytest.MonkeyPatch, script: str) -> TrainingChild:
    """The child of a run whose process was this shell script."""
    program = run.path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    child = TrainingChild(run, Roots.choose(run.path, {}), detached=True)
    child.process.wait()
    return child


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
    made(run, "A-efficiency-fold0", "preparing")
    child = ended(run, monkeypatch, "exit 1")
    write_manifest(run, read_manifest(run).model_copy(update={"status": "failed", "error": error.to_record()}))
    with pytest.raises(PpgsError, match=error.problems[0].what):
        child.raise_failure()
    assert run.log.is_file() == kept


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_an_end_that_is_only_in_the_log_is_told_in_its_words(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has the end of an earlier process."""
    run = made(RunFolder(tmp_path / "fold_0"), "A", status, error=PpgsError("an earlier error").to_record())
    run.log.write_text("an earlier line\n")
    with pytest.raises(BadInput, match="cannot be written: Permission denied") as told:
        ended(run, monkeypatch, "echo other; echo 'cannot be written: Permission denied'; exit 2").raise_failure()
    assert told.value.problems[0].where == str(run.log) and told.value.problems[0].remedy
    with pytest.raises(RunError, match="the run is held"):
        ended(run, monkeypatch, "echo the run is held; exit 4").raise_failure()
    with pytest.raises(PpgsError, match="ended with code 4"):
        ended(run, monkeypatch, "exit 4").raise_failure()
    # A stop on request before the run was claimed.
    ended(run, monkeypatch, "exit 75").raise_failure()


def test_python_raises_what_stopped_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(RunFolder(tmp_path / "fold_0"), "A", "stopped", error=NonFiniteLoss("nan", "", "a remedy").to_record())
    manifest = run.manifest.read_text()
    ended(run, monkeypatch, "exit 75")
    with pytest.raises(StoppedEarly, match="the training was stopped"):
        api._follow(run, Roots.choose(tmp_path, {}), None)
    (run.path / "new.json").write_text(manifest.replace('"updated": 1', '"updated": 2'))
    ended(run, monkeypatch, f"cp {run.path}/new.json {run.manifest}; exit 75")
    run.manifest.write_text(manifest)
    with pytest.raises(NonFiniteLoss, match="nan"):
        api._follow(run, Roots.choose(tmp_path, {}), None)


def test_a_number_of_workers_that_is_none_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped")
    monkeypatch.setenv("nnUNet_n_proc_DA", "abc")
    with pytest.raises(BadInput, match="nnUNet_n_proc_DA is 'abc'"):
        TrainingChild(run, Roots.choose(tmp_path, {}), detached=True)
    assert not run.log.exists()
