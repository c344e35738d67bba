"""The model card of an exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ppgs.commands import model_card
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.schedule import Schedule, dump
from tests.commands.test_models import trained
from tests.helpers.facts import raw_plans

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
    (run.model / "plans.json").write_text(json.dumps(raw_plans()))
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


def requested(run: RunFolder, **options: Any) -> RunFolder:
    manifest = read_manifest(run)
    manifest.request = manifest.request.model_copy(update=options)
    write_manifest(run, manifest)
    return run


@pytest.mark.parametrize(
    ("options", "schedule", "said"),
    [
        (
            {},
            {},
            "learning rate and loss are nnU-Net's. Augmentation uses nnU-Net's transforms, applied sample by sample.",
        ),
        (
            {"augmentation": "batchwise"},
            {},
            "Augmentation uses nnU-Net's transforms, applied to whole batches by ppgs.",
        ),
        ({"trainer": "LabTrainer"}, {}, "loss are those of the trainer class `LabTrainer`. Augmentation uses its"),
        ({}, {"learning_rate": {"warmup": 5}}, "and loss are nnU-Net's; the learning rate decays over epochs, after a"),
        ({}, {"mirroring": [0, 1]}, "Mirroring, in training and inference, is limited to the axes 0, 1."),
        ({}, {"mirroring": []}, "Mirroring, in training and inference, is off."),
    ],
)
def test_the_settings_are_those_that_were_requested(
    tmp_path: Path, options: dict[str, Any], schedule: dict[str, Any], said: str
) -> None:
    assert said in training(requested(fold(tmp_path, 0, **schedule), **options))


def test_batches_that_could_not_be_augmented_together_are_not_claimed(tmp_path: Path) -> None:
    run = requested(fold(tmp_path, 0), augmentation="batchwise", trainer="Lab")
    assert "whole batches" in training(run)
    with run.events.open("a") as log:
        message = "Lab augments sample by sample, as nnU-Net does: the batch-wise augmentation does not know X"
        log.write(json.dumps({"v": 1, "seq": 9, "time": 9.0, "type": "warning", "message": message}) + "\n")
    assert "applied sample by sample" in training(run)


def test_folds_with_different_settings_are_described_one_by_one(tmp_path: Path) -> None:
    runs = [requested(fold(tmp_path, i), augmentation=how) for i, how in enumerate(("nnunet", "batchwise", "nnunet"))]
    lines = training(*runs).splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("- Fold")] == ["- Fold 0, 2", "- Fold 1"]
