"""`--against`: a run's measured cost beside the prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.plan_schedule import Measured, PlanRequest, plan_schedule
from ppgs.errors import BadInput
from ppgs.estimate.shipped_tasks import read_task
from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Recipe, Schedule, dump, parse, resolve
from ppgs.schedule.replan import in_parts
from ppgs.tasks import Roots


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of two epochs in the first stage and one in the second, the first of them trained twice."""
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    schedule = resolve(Recipe(epochs=30, iterations_per_epoch=10), read_task("Task04_Hippocampus").made_for)
    run = RunFolder(tmp_path / "model" / "fold_0")
    run.own.mkdir(parents=True)
    run.schedule.write_text(dump(schedule), encoding="utf-8")
    with EventLog(run.events) as log:
        log.append("run_started", stages=[s.model_dump() | {"voxels": s.voxels} for s in schedule.stages])
        for epoch, stage, seconds, memory in ((0, 0, 9.0, 5), (0, 0, 1.0, 5), (1, 0, 3.0, 7), (2, 1, 4.0, None)):
            log.append("epoch_finished", epoch=epoch, stage=stage, seconds=seconds, peak_memory_bytes=memory)
    return run


def test_a_run_is_compared_by_stage(run: RunFolder, tmp_path: Path) -> None:
    request = PlanRequest(task="Task04_Hippocampus", against=str(run.path))
    result = plan_schedule(request, Roots.under(tmp_path))
    assert len(result.estimate.stages) == 15
    assert result.schedule.epochs == 30
    assert result.measured == (Measured(0, 2, 2.0, 7, None), Measured(1, 1, 4.0, None, None))
    assert result.as_json()["measured"][0]["seconds_per_epoch"] == 2.0


def test_a_run_of_other_stages_is_refused(run: RunFolder, tmp_path: Path) -> None:
    request = PlanRequest(task="Task04_Hippocampus", against=str(run.path), schedule="performance")
    with pytest.raises(BadInput, match="other stages"):
        plan_schedule(request, Roots.under(tmp_path))


def test_a_run_with_a_budget_is_compared_with_its_last_plan(run: RunFolder, tmp_path: Path) -> None:
    frozen = parse(run.schedule.read_text(encoding="utf-8"))
    assert isinstance(frozen, Schedule)
    with EventLog(run.events) as log:
        log.append("run_started", stages=[s.model_dump() | {"voxels": s.voxels} for s in in_parts(frozen).stages])
        log.append("budget_planned", stages=[s.model_dump() | {"voxels": s.voxels} for s in frozen.stages])
    request = PlanRequest(task="Task04_Hippocampus", against=str(run.path))
    assert len(plan_schedule(request, Roots.under(tmp_path)).measured) == 2
