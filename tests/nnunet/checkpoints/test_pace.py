"""Checkpoints by time: how much a kill may lose, and that it, a stop and the best epoch stay exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ppgs.errors import StoppedEarly
from ppgs.nnunet.checkpoints.files import CheckpointWriter, load_checkpoint
from ppgs.nnunet.checkpoints.pace import Pace
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from ppgs.schedule.model import Validation
from tests.helpers.trainers import equal, weights

# Pseudo Dice of the epochs: their moving average is the highest after the third.
DICE = (0.1, 0.5, 0.9, 0.1, 0.1, 0.1)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def schedule(facts: PlanFacts, *epochs: int) -> Schedule:
    """Stages of so many short epochs."""
    base = resolve(Recipe(mode="constant", epochs=1, iterations_per_epoch=2), facts)
    stages = tuple(Stage(patch_size=(16, 16, 16), batch_size=2, epochs=count) for count in epochs)
    return base.model_copy(update={"stages": stages, "validation": Validation(iterations=1)})


def saved_after(epochs: list[float], cost: float) -> tuple[list[int], float]:
    """Return after which epochs of these durations a checkpoint is due, and the most seconds that a kill loses."""
    clock = Clock()
    pace = Pace(clock)
    saved: list[int] = []
    last, most = clock.now, 0.0
    for number, seconds in enumerate(epochs, 1):
        clock.now += seconds
        most = max(most, clock.now - last)
        if pace.ends_epoch(cost if saved else 0.0):
            pace.saved()
            saved.append(number)
            last = clock.now
    return saved, most


@pytest.mark.parametrize(
    ("seconds", "cost", "expected"),
    [
        (2.0, 0.1, [1, 2, 3, 4, 5, 6, 7, 8]),
        (2.0, 0.5, [1, 6]),
        (25.0, 10.0, [1, 3, 5, 7]),
        (31.0, 10.0, [1, 2, 3, 4, 5, 6, 7, 8]),
        (300.0, 100.0, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_checkpoints_take_five_percent_or_come_every_minute(seconds: float, cost: float, expected: list[int]) -> None:
    saved, _ = saved_after([seconds] * 8, cost)
    assert saved == expected


@pytest.mark.parametrize("seconds", [0.3, 7.0, 29.0, 40.0, 61.0, 500.0])
@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0])
def test_a_kill_loses_at_most_an_epoch_or_a_minute(seconds: float, cost: float) -> None:
    saved, most = saved_after([seconds] * 400, cost)
    assert most <= max(60.0, seconds) + 1e-6
    total = 400 * seconds
    assert len(saved) * cost <= max(0.05 * total, (total / 30 + 1) * cost)


@pytest.fixture
def slow(
    build: Any, demo_facts: PlanFacts, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, list[tuple[str, int]]]]:
    """Make trainers of six epochs of 25 s, whose checkpoints take 10 s: they come after the second, fourth and last."""
    monkeypatch.setattr(CheckpointWriter, "seconds", 10.0)

    def make(**options: Any) -> tuple[Any, list[tuple[str, int]]]:
        saved: list[tuple[str, int]] = []

        def emit(kind: str, **fields: Any) -> None:
            if kind == "checkpoint_saved":
                saved.append((fields["file"], fields["epoch"]))

        trainer = build(schedule(demo_facts, 6), emit=emit, **options)
        clock = Clock()
        trainer._pace = Pace(clock)
        begin, validate = trainer.on_epoch_start, trainer.validation_step

        def on_epoch_start() -> None:
            clock.now += 25.0
            begin()

        def validation_step(batch: dict[str, Any]) -> dict[str, Any]:
            result, dice = validate(batch), DICE[trainer.current_epoch]
            hits = np.full_like(result["tp_hard"], 100 * dice, dtype=np.float64)
            return {**result, "tp_hard": hits, "fp_hard": hits * 0, "fn_hard": 2 * (100 - hits) * (hits > 0)}

        trainer.on_epoch_start, trainer.validation_step = on_epoch_start, validation_step
        return trainer, saved

    return make


def test_the_best_epoch_is_kept_although_no_checkpoint_was_due(slow: Any) -> None:
    trainer, saved = slow()
    states: list[dict[str, Any]] = []
    end = trainer.on_epoch_end
    trainer.on_epoch_end = lambda: (states.append(weights(trainer)), end())
    trainer.run_training()
    latest, best = "checkpoint_latest.pth", "checkpoint_best.pth"
    assert saved == [(latest, 2), (best, 3), (latest, 4), (latest, 6), ("checkpoint_final.pth", 6)]
    content = load_checkpoint(trainer.settings.run.checkpoint_best)
    assert content["current_epoch"] == 3
    assert equal(content["network_weights"], states[2])


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_kill_loses_what_followed_the_checkpoint_and_a_stop_nothing(slow: Any, how: str) -> None:
    whole, _ = slow()
    whole.run_training()
    stopping = False
    first, _ = slow(stop_requested=lambda: "SIGTERM" if stopping else None)
    step = first.train_step

    def train_step(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal stopping
        if (first.current_epoch, len(first._losses)) == (3, 1):
            if how == "kill":
                raise KeyboardInterrupt
            stopping = True
        result: dict[str, Any] = step(batch)
        return result

    first.train_step = train_step
    with pytest.raises(KeyboardInterrupt if how == "kill" else StoppedEarly):
        first.run_training()
    run = first.settings.run
    content = load_checkpoint(run.checkpoint_latest)
    place = content["current_epoch"], content["ppgs"]["iteration"]
    assert place == ((2, 0) if how == "kill" else (3, 1))
    assert load_checkpoint(run.checkpoint_best)["current_epoch"] == place[0]
    second, saved = slow()
    second.restore(content, run.checkpoint_latest)
    second.run_training()
    assert equal(weights(second), weights(whole))
    if how == "kill":
        assert ("checkpoint_best.pth", 3) in saved or ("checkpoint_latest.pth", 3) in saved
        best = load_checkpoint(second.settings.run.checkpoint_best)
        assert equal(best["network_weights"], load_checkpoint(whole.settings.run.checkpoint_best)["network_weights"])


def test_every_stage_ends_with_a_checkpoint(build: Any, demo_facts: PlanFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckpointWriter, "seconds", 10.0)
    saved: list[int] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "checkpoint_saved" and fields["file"] == "checkpoint_latest.pth":
            saved.append(fields["epoch"])

    trainer = build(schedule(demo_facts, 3, 1, 2), emit=emit)
    trainer._pace = Pace(Clock())
    trainer.run_training()
    assert saved == [3, 4, 6]
