"""The model card of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppgs.commands import model_card
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.schedule import Schedule, dump
from tests.commands.test_models import trained

STAGES = [{"patch_size": [edge] * 3, "batch_size": 2, "epochs": n} for edge, n in ((16, 4), (32, 3), (32, 3))]


def fold(results: Path, number: int, *, ended_after: int | None = None, **schedule: Any) -> RunFolder:
    """A fold of 10 epochs, or one that stopped early."""
    run = trained(results, "Dataset009_Spleen", number)
    run.schedule.write_text(dump(Schedule.model_validate({"stages": STAGES, "iterations_per_epoch": 250} | schedule)))
    started = {"type": "run_started", "epoch": 0, "iteration": 0, "epochs": 10, "iterations_per_epoch": 250}
    records: list[dict[str, Any]] = [{**started, "stages": [{**stage, "voxels": 1} for stage in STAGES]}]
    if ended_after is not None:
        records.append({"type": "early_stopping", "epoch": ended_after - 1, "patience": 2, "best_epoch": 1})
    lines = [json.dumps({"v": 1, "seq": seq, "time": float(seq), **record}) for seq, record in enumerate(records)]
    run.events.write_text("".join(f"{line}\n" for line in lines))
    return run


def training(*runs: RunFolder) -> str:
    return "\n".join(model_card._training(runs, read_manifest(runs[0])))


def test_epochs_are_those_that_were_trained(tmp_path: Path) -> None:
    whole, early = fold(tmp_path, 0), fold(tmp_path, 1, ended_after=6)
    assert "10 epochs of 250 iterations in 3 stages" in training(whole)
    card = training(early)
    assert "6 epochs of 250 iterations in 2 stages" in card
    assert card.splitlines()[-2:] == ["| 1 | 16x16x16 | 2 | 4 | 50% |", "| 2 | 32x32x32 | 2 | 2 | 50% |"]


def test_folds_of_different_lengths_have_rows_of_their_own(tmp_path: Path) -> None:
    runs = [fold(tmp_path, 0), fold(tmp_path, 1, ended_after=9, iterations_per_epoch=100), fold(tmp_path, 2)]
    card = training(*runs)
    assert "9 to 10 epochs of 100 to 250 iterations in 3 stages" in card
    assert "| fold | stage | patch |" in card
    assert "| 0, 2 | 3 | 32x32x32 | 2 | 3 | 50% |" in card and "| 1 | 3 | 32x32x32 | 2 | 2 | 50% |" in card
    assert "| fold |" not in training(runs[0], runs[2])
