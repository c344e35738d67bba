"""A schedule that is planned while it trains: the same weights as the schedule that it ends as, however interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ppgs.errors import RunError, StoppedEarly
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.schedule import PlanFacts, Recipe, Schedule, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.replan import in_parts, planned
from tests.helpers.trainers import equal, weights


class Planner:
    """Settles stages by a script, and keeps the newest version as the run's folder does."""

    def __init__(self, schedule: Schedule) -> None:
        self.versions = [schedule]

    def __call__(self, schedule: Schedule) -> Schedule:
        assert schedule == self.versions[-1]
        # More or less than was planned, in turn.
        left = (1.0, 3.0, 0.5)[schedule.settled % 3] * sum(s.epochs for s in schedule.stages[schedule.settled :])
        self.versions.append(planned(schedule, [1.0] * len(schedule.stages), min(left, 12)))
        return self.versions[-1]


@pytest.fixture
def shape(demo_facts: PlanFacts) -> Schedule:
    recipe = Recipe(epochs=20, iterations_per_epoch=1, start=0.2, learning_rate=LearningRate(decay="work", warmup=2))
    return in_parts(resolve(recipe, demo_facts))


def stop_after(iterations: int) -> Callable[[], str | None]:
    """Asks to stop when this many batches were asked for."""
    left = [iterations]

    def asked() -> str | None:
        left[0] -= 1
        return "asked" if left[0] < 0 else None

    return asked


def test_it_trains_what_its_last_version_says(build: Any, shape: Schedule) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    planner = Planner(shape)
    # Workers prefetch far beyond an epoch.
    one = build(shape, plan=planner, workers=2, emit=lambda kind, **fields: told.append((kind, fields)))
    one.train()
    last = planner.versions[-1]
    assert last.settled == len(last.stages) and len({v.epochs for v in planner.versions}) > 2
    epochs = [f for kind, f in told if kind == "epoch_finished"]
    assert [f["stage"] for f in epochs] == [last.stage_index_at(e) for e in range(last.epochs)]
    assert [f["learning_rate"] for f in epochs] == pytest.approx(
        [0.01 * last.learning_rate_at(e) for e in range(last.epochs)]
    )
    assert one.settings.run.checkpoint_final.is_file() and not one.settings.run.checkpoint_latest.exists()
    replayed = build(last)
    replayed.train()
    assert equal(weights(one), weights(replayed))
    assert replayed.logger.get_checkpoint()["lrs"] == one.logger.get_checkpoint()["lrs"]


@pytest.mark.parametrize("after", [0, 1, 4, 7, 12])
def test_an_interruption_changes_nothing(build: Any, shape: Schedule, after: int) -> None:
    planner = Planner(shape)
    whole = build(shape, plan=planner)
    whole.train()
    again = Planner(shape)
    first = build(shape, plan=again, stop_requested=stop_after(after))
    with pytest.raises(StoppedEarly):
        first.train()
    # As the leader does: the newest version, and all that are known.
    known = frozenset(version.digest for version in again.versions)
    second = build(again.versions[-1], plan=again, schedules=known)
    second.restore(load_checkpoint(first.settings.run.checkpoint_latest), first.settings.run.checkpoint_latest)
    second.train()
    assert again.versions[-1] == planner.versions[-1]
    assert equal(weights(second), weights(whole))


def test_a_decision_that_outlived_its_checkpoint_is_not_made_again(build: Any, shape: Schedule) -> None:
    planner = Planner(shape)
    whole = build(shape, plan=planner)
    whole.train()
    # Killed after the last decision, with nothing but the first checkpoint on disk.
    first = build(shape, plan=Planner(shape), stop_requested=stop_after(0))
    with pytest.raises(StoppedEarly):
        first.train()
    known = frozenset(version.digest for version in planner.versions)
    second = build(planner.versions[-1], plan=None, schedules=known)
    second.restore(load_checkpoint(first.settings.run.checkpoint_latest), first.settings.run.checkpoint_latest)
    second.train()
    assert equal(weights(second), weights(whole))


def test_nobody_plans_it(build: Any, shape: Schedule) -> None:
    with pytest.raises(RunError, match="not settled"):
        build(shape).train()
