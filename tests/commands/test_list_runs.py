"""Rows of `ppgs runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ppgs
from ppgs.cli.train.sweep_table import seconds_left
from ppgs.commands.runs import list_runs
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from tests.helpers.made_runs import made

STAGES: list[dict[str, Any]] = [{"patch_size": [8, 8, 8], "batch_size": 2, "epochs": 2, "voxels": 512}]
STARTED: dict[str, Any] = {"type": "run_started", "epoch": 0, "epochs": 2, "iterations_per_epoch": 4, "stages": STAGES}
EPOCHS: list[dict[str, Any]] = [
    {"type": "epoch_finished", "epoch": epoch, "stage": 0, "seconds": 5.0, "train_seconds": 4.0} for epoch in range(2)
]
REPEATED: list[dict[str, Any]] = [
    {"type": "validation_started", "cases": None, "checkpoint": "final"},
    {"type": "validation_progress", "done": 2, "total": 8, "checkpoint": "final"},
]


def write_events(run: RunFolder, records: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"v": 1, "seq": i, "time": 10.0 * i, **r}) + "\n" for i, r in enumerate(records)]
    run.events.write_text("".join(lines))


@pytest.mark.parametrize(
    ("status", "records"),
    [
        ("finished", [STARTED, *EPOCHS, {"type": "run_finished"}]),
        ("stopped", [STARTED, *EPOCHS[:1], {"type": "run_stopped", "reason": "asked"}]),
    ],
)
def test_a_validation_that_was_killed_leaves_the_run_as_it_was(
    tmp_path: Path, status: str, records: list[dict[str, Any]]
) -> None:
    run = made(RunFolder.place(tmp_path, "Dataset001_A", "T", "nnUNetPlans", "3d_fullres", 0), "a", status)
    write_events(run, records)
    (row,) = list_runs(tmp_path)
    before = seconds_left(row.state)
    assert before["seconds_left"] == (0.0 if status == "finished" else pytest.approx(5.0))
    write_events(run, [*records, *REPEATED])
    (row,) = list_runs(tmp_path)
    assert (row.status, row.state.status, seconds_left(row.state)) == (status, status, before)
    assert ppgs.find_run(run.path, root=tmp_path).state.status == status
    # One that is still at work is not over.
    with Lock(run.lock):
        (row,) = list_runs(tmp_path)
        assert row.state.status == "validating"
