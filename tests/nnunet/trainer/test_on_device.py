"""Trainings whose batches are augmented by the device that trains, as on CUDA but with tensors of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ppgs.nnunet.data import keys
from ppgs.nnunet.data.dataset import KeyedBatches
from ppgs.nnunet.network import optimiser
from ppgs.nnunet.network.optimiser import LateUpdate
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from tests.helpers.operators import Operators
from tests.helpers.trainers import equal, weights

Build = Callable[..., Any]


@pytest.fixture
def schedule(demo_facts: PlanFacts) -> Schedule:
    """Two epochs of three iterations with patches so small that an epoch's batches are one group."""
    base = resolve(Recipe(mode="constant", epochs=2, iterations_per_epoch=3), demo_facts)
    small = Stage(patch_size=(8, 8, 8), batch_size=4, epochs=1)
    return base.model_copy(update={"stages": (small, small.model_copy(update={"patch_size": (16, 16, 16)}))})


@pytest.fixture
def build_simulated(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Makes trainers that get unfinished batches and update without waiting."""

    def unfinished(*given: Any, finished: bool) -> KeyedBatches:
        return KeyedBatches(*given, finished=False)

    def make(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(optimiser, "late_update", LateUpdate)
        monkeypatch.setattr("ppgs.nnunet.trainer.trainer.KeyedBatches", unfinished)
        return build(*given, **options)

    return make


def test_from_its_arrival_to_the_update_nothing_waits_for_a_batch(build_simulated: Build, schedule: Schedule) -> None:
    trainer = build_simulated(schedule)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batches: Iterator[dict[str, Any]] = trainer.dataloader_train
    # The first step sets up the optimiser.
    trainer.train_step(next(batches))
    arrived = [next(batches) for _ in range(2)]
    with Operators() as watch:
        for batch in arrived:
            trainer._steps.take(batch, 1)
    assert watch.calls > 100
    assert not watch.waits


def test_weights_do_not_depend_on_the_groups(
    build_simulated: Build, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = build_simulated(schedule, workers=2)
    grouped.run_training()
    monkeypatch.setattr(keys, "_GROUP_VOXELS", 1)
    alone = build_simulated(schedule)
    alone.run_training()
    assert equal(weights(grouped), weights(alone))
    losses = [trainer.logger.get_checkpoint()["train_losses"] for trainer in (grouped, alone)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
