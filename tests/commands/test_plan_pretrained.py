"""`plan-schedule --pretrained`: whether the plans are those of the checkpoint, and what makes plans that are."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ppgs.cli.app import app
from ppgs.commands.plan_schedule import PlanRequest, plan_schedule
from ppgs.errors import BadInput, NoSuchRun
from ppgs.estimate.shipped_tasks import read_task
from ppgs.tasks import Roots
from tests.helpers.facts import TASK, raw_plans

DATASET = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    for name in Roots.under(tmp_path).environment:  # which nnU-Net is pointed to
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(raw_plans()))
    return path


def checkpoint(path: Path, plans: dict[str, Any] | None) -> Path:
    arguments = {} if plans is None else {"plans": plans, "configuration": "3d_fullres"}
    torch.save({"network_weights": {"a": torch.zeros(1)}, "init_args": arguments}, path)
    return path


def notes(task: str, pretrained: Path | str, root: Path) -> str:
    result = plan_schedule(PlanRequest(task=task, pretrained=str(pretrained), device="cpu"), Roots.under(root))
    assert result.as_json()["notes"] == list(result.notes)
    return "\n".join(result.notes)


def test_other_plans_are_told_with_the_command_that_makes_matching_ones(plans: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(raw_plans())
    other["configurations"]["3d_fullres"] |= {"spacing": [2.0, 1.0, 1.0], "patch_size": [32, 56, 40]}
    source = checkpoint(tmp_path / "other.pth", other)
    said = notes(str(plans), source, tmp_path)
    assert "the checkpoint was trained with other plans (spacing, patch size)" in said
    assert f"'ppgs prepare Dataset004_Hippocampus --plans-from {source}' makes plans that match it" in said
    # Of the plans that ship with ppgs, patch size and network are known.
    said = notes(TASK, source, tmp_path)
    assert "other plans (patch size)" in said and f"ppgs prepare {TASK} --plans-from {source}" in said


def test_the_same_plans_and_none_at_all(plans: Path, tmp_path: Path) -> None:
    same = checkpoint(tmp_path / "same.pth", raw_plans())
    packed = tmp_path / "model.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(same, f"{read_task(TASK).made_for.dataset}/T__P__C/fold_0/checkpoint_final.pth")
    for source in (same, packed):
        assert "the plans agree with those of the checkpoint" in notes(str(plans), source, tmp_path)
    assert "the plans that ship with ppgs do not tell the rest" in notes(TASK, same, tmp_path)
    assert "is unknown" in notes(str(plans), checkpoint(tmp_path / "bare.pth", None), tmp_path)


def test_what_is_no_checkpoint_is_refused(plans: Path, tmp_path: Path) -> None:
    (tmp_path / "some.pth").write_text("no checkpoint")
    for given, error in (("some.pth", BadInput), ("gone.pth", BadInput)):
        with pytest.raises(error):
            notes(str(plans), tmp_path / given, tmp_path)
    with pytest.raises(NoSuchRun):
        notes(str(plans), "a-run", tmp_path)


def test_the_command_line_takes_it(plans: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "same.pth", raw_plans())
    done = CliRunner().invoke(app, ["plan-schedule", str(plans), "--pretrained", str(source), "--root", str(tmp_path)])
    assert done.exit_code == 0 and "the plans agree" in done.stdout
