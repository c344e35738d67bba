"""A run that was trained, stopped and resumed, as its event log shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from tests.helpers.made_runs import made

STAGES = [
    {"patch_size": [8, 8, 8], "batch_size": 4, "epochs": 1, "voxels": 512},
    {"patch_size": [16, 16, 8], "batch_size": 2, "epochs": 2, "voxels": 2048},
]


def start(log: EventLog, epoch: int) -> None:
    log.append("run_started", epoch=epoch, iterations_per_epoch=10, epochs=3, stages=STAGES, device="cpu")


def train(log: EventLog, run: RunFolder, epoch: int, **changes: Any) -> None:
    """Log an epoch of half an hour and half a kWh, and its slice."""
    run.slices.mkdir(exist_ok=True)
    name = f"epoch_{epoch:05d}.npz"
    labels = np.array([[0, 1], [2, 0]], np.uint8)
    grey = np.array([[0, 80], [160, 255]], np.uint8)
    spacing = np.array([1.0, 2.0])
    np.savez(
        run.slices / name, image=grey, reference=labels, prediction=labels[::-1], spacing=spacing, index=0, epoch=epoch
    )
    values = {"train_loss": 1 - epoch / 4, "val_loss": None, "ema_dice": 0.5, "pseudo_dice": [0.25, None]}
    spent = {"seconds": 1800.0, "energy_wh": 500.0}
    log.append("epoch_finished", **{"epoch": epoch, "stage": min(epoch, 1), **values, **spent, **changes})
    log.append("slice_written", epoch=epoch, stage=min(epoch, 1), file=name, case="c", slice_dice=[])


@pytest.fixture
def begun_run(tmp_path: Path) -> RunFolder:
    """A run of three epochs that was stopped after the second; the checkpoint is that of the first."""
    run = made(RunFolder(tmp_path / "results" / "Dataset001_A" / "T__p__c" / "fold_0"), "a-fold0", "stopped")
    with EventLog(run.events) as log:
        start(log, 0)
        train(log, run, 0)
        train(log, run, 1)
        log.append("run_stopped", reason="on request")
    return run


def finish(run: RunFolder) -> None:
    """Resume it: the second epoch is trained again, the third for the first time."""
    manifest = run.manifest.read_text()
    run.manifest.write_text(manifest.replace('"stopped"', '"finished"'))
    with EventLog(run.events) as log:
        start(log, 1)
        train(log, run, 1, seconds=9000.0)
        train(log, run, 2)
        log.append("validation_finished", dice={"organ (left)+": 0.75, "absent": None}, mean=0.75)
        log.append("run_finished")


@pytest.fixture
def finished_run(begun_run: RunFolder) -> RunFolder:
    finish(begun_run)
    return begun_run
