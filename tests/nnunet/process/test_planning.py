"""The schedule that a run is planned with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import DoesNotFit, ScheduleError
from ppgs.nnunet.process.planning import Planning
from ppgs.plans import parse_dataset, parse_plans
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.schedule import Schedule, parse
from ppgs.tasks import Roots
from tests.helpers.facts import raw_plans
from tests.helpers.made_runs import made

DATASET = parse_dataset({"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}})


def plan(run: RunFolder, batch: int) -> tuple[Schedule, list[str]]:
    """Plan a run as a process does that starts or continues it; return the schedule and the warnings."""
    raw, manifest, told = raw_plans(), read_manifest(run), []
    raw["configurations"]["3d_fullres"]["batch_size"] = batch
    planning = Planning(run, manifest, Roots.under(run.path), lambda _, message: told.append(message), 1)
    schedule = planning._schedule(parse_plans(raw), DATASET, None)
    assert parse(run.schedule.read_text()) == schedule
    assert read_manifest(run).schedule_hash in (None, schedule.digest)
    manifest.schedule_hash = schedule.digest
    write_manifest(run, manifest)
    return schedule, told


def test_plans_that_change_before_anything_is_trained(tmp_path: Path) -> None:
    run = made(RunFolder(tmp_path / "fold_0"), "x-fold0", "stopped")
    first = plan(run, 9)
    assert plan(run, 9) == first == (first[0], [])
    schedule, (warning,) = plan(run, 4)
    assert schedule.stages[-1].batch_size == 4 and "plans changed" in warning
    run.checkpoint_latest.touch()
    assert plan(run, 4) == (schedule, [])
    with pytest.raises(ScheduleError, match="other plans"):
        plan(run, 9)
    assert parse(run.schedule.read_text()) == schedule


def test_a_schedule_that_cannot_be_made_anew_leaves_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its schedule's hash the command would remove the run as one that never began."""
    run = made(RunFolder(tmp_path / "fold_0"), "x-fold0", "stopped")
    first, _ = plan(run, 9)

    def too_large(*_: object) -> None:
        raise DoesNotFit("too large", "", "")

    monkeypatch.setattr(Planning, "_fitting", too_large)
    with pytest.raises(DoesNotFit):
        plan(run, 4)
    assert read_manifest(run).schedule_hash == first.digest
    assert parse(run.schedule.read_text()) == first
