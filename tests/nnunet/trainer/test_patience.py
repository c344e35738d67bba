"""`--patience`: the last stage ends early, and again so after a resume."""

from __future__ import annotations

from typing import Any

import pytest

from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.trainer import patience as rule
from ppgs.schedule import PlanFacts, Recipe, resolve
from ppgs.schedule.replan import in_parts, with_all_settled
from tests.helpers.trainers import equal, weights


@pytest.mark.parametrize(
    ("averages", "best"), [([0.1, 0.3, 0.2], 1), ([0.3, 0.3], 0), ([float("nan"), 0.0], 1), ([], 0)]
)
def test_the_last_better_average(averages: list[float], best: int) -> None:
    assert rule.last_better(averages) == best


def test_patience_ends_the_last_stage_alone_and_again_after_a_resume(
    build: Any, demo_facts: PlanFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No average is ever better than the first.
    monkeypatch.setattr(rule, "last_better", lambda averages: 0)
    whole = resolve(Recipe(epochs=20, iterations_per_epoch=1), demo_facts)
    first, last = whole.stages[0], whole.stages[-1]
    stages = (first.model_copy(update={"epochs": 3}), last.model_copy(update={"epochs": 6}))
    schedule = whole.model_copy(update={"stages": stages})
    told: list[tuple[str, dict[str, Any]]] = []
    trainer = build(schedule, patience=2, emit=lambda kind, **fields: told.append((kind, fields)))
    trainer.train()
    assert trainer.current_epoch == 6
    (event,) = [fields for kind, fields in told if kind == "early_stopping"]
    assert (event["epoch"], event["best_epoch"], event["patience"]) == (5, 3, 2)
    final = trainer.settings.run.checkpoint_final
    # As if it was killed just before the final checkpoint was written.
    again = build(schedule, patience=2)
    again.restore(load_checkpoint(final), final)
    again.train()
    assert again.current_epoch == 6
    assert equal(weights(again), weights(trainer))


def test_parts_of_the_last_stage_are_watched_as_one(
    build: Any, demo_facts: PlanFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training with a budget has its last stage in eight parts, each too short for much patience."""
    monkeypatch.setattr(rule, "last_better", lambda averages: 0)
    whole = resolve(Recipe(epochs=20, iterations_per_epoch=1), demo_facts)
    lengths = ((whole.stages[0], 2), (whole.stages[-1], 16))
    stages = tuple(stage.model_copy(update={"epochs": epochs}) for stage, epochs in lengths)
    whole = whole.model_copy(update={"stages": stages})
    schedule = with_all_settled(in_parts(whole))
    assert len(schedule.stages) > 6 and all(stage.epochs <= 5 for stage in schedule.stages)
    told: list[dict[str, Any]] = []
    trainer = build(schedule, patience=6, emit=lambda kind, **f: told.append(f) if kind == "early_stopping" else None)
    trainer.train()
    first = whole.first_epoch(len(whole.stages) - 1)
    assert [(event["epoch"], event["best_epoch"]) for event in told] == [(first + 6, first)]
