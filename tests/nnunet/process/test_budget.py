"""Mode `auto` given a budget, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ppgs.estimate.training_budget import Guess
from ppgs.nnunet.process import budget
from ppgs.runs.folder import RunFolder
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.auto import first_share
from tests.helpers.facts import HIPPOCAMPUS as FACTS


def planned(monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Schedule:
    """The shape of a training on a machine where an iteration at the final patch takes half a second."""
    monkeypatch.setattr(budget, "costs_of", lambda *args, **more: None)
    monkeypatch.setattr(budget, "guess_costs", lambda *args, **more: Guess((0.5,), 0.1))
    request = TrainingRequest(task="Task04_Hippocampus", schedule="mode: auto", device="cpu", **asked)
    manifest = SimpleNamespace(request=request, device="cpu", configuration="3d_fullres")
    plans = SimpleNamespace(configuration=lambda name: None)
    planner = budget.BudgetPlanner(
        RunFolder(Path("fold_0")), cast(Any, manifest), cast(Any, plans), cast(Any, None), lambda *args, **more: None, 1
    )
    return planner.shape(FACTS)


@pytest.mark.parametrize(("time", "iterations"), [("1m", 120), ("4m", 480), ("8m", 960), ("20m", 2400), ("2h", 14400)])
def test_auto_starts_where_the_budget_allows(monkeypatch: pytest.MonkeyPatch, time: str, iterations: float) -> None:
    schedule = planned(monkeypatch, budget=time)
    longest = resolve(Recipe(start=first_share(iterations) or "smallest", epochs=1000), FACTS)
    assert schedule.stages[0].patch_size == longest.stages[0].patch_size
    assert schedule.learning_rate.decay == "work"


def test_auto_starts_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, budget="1m", start_patch="8x8x8").stages[0].patch_size == (8, 8, 8)
