"""Stalled runs: a rule about a run's state and the time."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ppgs.errors import PathUnusable, RunLocked
from ppgs.runs.lock import Lock, Owner, turn
from ppgs.runs.stalled import patience, stalled_since
from ppgs.runs.state import RunState

STAGE = {"patch_size": [8, 8, 8], "batch_size": 2, "epochs": 5, "voxels": 512}
STARTED = {
    "type": "run_started",
    "epoch": 0,
    "iteration": 0,
    "epochs": 5,
    "iterations_per_epoch": 10,
    "stages": [STAGE],
}


def state(*records: tuple[float, dict[str, Any]]) -> RunState:
    return RunState().apply_all({"time": time, **record} for time, record in records)


def preparing(step: str, done: int = 0, total: int = 0) -> dict[str, Any]:
    return {"type": "preparing", "step": step, "done": done, "total": total}


def iterations(done: int) -> dict[str, Any]:
    return {"type": "iterations", "epoch": 1, "stage": 0, "iteration": done, "iterations": 10, "phase": "train"}


def finished(seconds: float) -> dict[str, Any]:
    return {"type": "epoch_finished", "epoch": 0, "stage": 0, "seconds": seconds}


def test_a_training_is_stalled_after_many_of_its_own_iterations() -> None:
    quick = state((0, STARTED), (10, finished(10)), (11, iterations(1)))
    assert stalled_since(quick, 11 + 600) is None
    assert stalled_since(quick, 11 + 601) == 11
    slow = state((0, STARTED), (1000, finished(1000)), (1100, iterations(1)))
    assert stalled_since(slow, 1100 + 2000) is None
    assert stalled_since(slow, 1100 + 2001) == 1100


def test_the_first_epoch_is_given_time_to_compile() -> None:
    first = state((0, STARTED))
    assert stalled_since(first, 1800) is None
    assert stalled_since(first, 1801) == 0


@pytest.mark.parametrize("step", ["taking the fingerprint", "preprocessing"])
def test_a_preparation_is_stalled_too(step: str) -> None:
    hanging = state((0, preparing("starting")), (50, preparing(step, 3, 9)))
    assert stalled_since(hanging, 1850) is None
    assert stalled_since(hanging, 1851) == 50


def test_slow_cases_are_given_more_time() -> None:
    slow = state((0, preparing("preprocessing", 0, 9)), (6000, preparing("preprocessing", 3, 9)))
    assert patience(slow) == 10_000


def test_signs_of_life_are_no_progress() -> None:
    told = [(100.0 + n, {"type": "validation_progress", "done": 2, "total": 9}) for n in range(5000)]
    validating = state((0, {"type": "validation_started", "cases": 9}), *told)
    assert validating.progressed == 100
    assert stalled_since(validating, 5100) == 100
    warned = state((0, STARTED), (10, finished(10)), (900, {"type": "warning", "message": "x"}))
    assert stalled_since(warned, 901) == 10


def test_who_waits_for_another_process_or_is_done_is_not_stalled() -> None:
    assert stalled_since(state((0, preparing("waiting for another process that prepares this task"))), 1e6) is None
    for end in ("run_finished", "run_stopped", "run_failed"):
        assert stalled_since(state((0, STARTED), (1, {"type": end})), 1e6) is None
    assert stalled_since(RunState(), 1e6) is None


def test_a_start_is_progress_after_a_long_time_stopped() -> None:
    again = state((0, STARTED), (10, {"type": "run_stopped"}), (1e6, preparing("starting")))
    assert stalled_since(again, 1e6 + 1) is None


def test_a_folder_that_stays_locked_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppgs.runs.lock._ALONE_SECONDS", 0.0)
    (tmp_path / "lock").write_text(json.dumps({**vars(Owner.this_process()), "pid": 2**22 + 1}))
    # By a process that is stopped, or on a file server that does not answer.
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(RunLocked, match="could not be locked"), Lock(tmp_path / "lock"):
        pass
    with pytest.raises(PathUnusable, match="could not be locked"), turn(tmp_path / "lock", "it", lambda: None):
        pass
    os.close(folder)
    with Lock(tmp_path / "lock"):
        pass
