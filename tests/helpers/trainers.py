"""Trainers in the test's own process: their weights, and the shortest schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the network's weights."""
    return {k: v.clone() for k, v in trainer.network.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether weights are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def one_stage(facts: PlanFacts, **changes: Any) -> Schedule:
    """Two epochs of two iterations at the plan's patch, in a stage with these changes."""
    stage = Stage(patch_size=facts.patch_size, batch_size=4, epochs=2, **changes)
    base = resolve(Recipe(mode="constant", epochs=2, iterations_per_epoch=2), facts)
    return base.model_copy(update={"stages": (stage,)})


def begun(trainer: Any) -> Iterator[dict[str, Any]]:
    """Begin an epoch of a trainer and return its batches."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batches: Iterator[dict[str, Any]] = trainer.dataloader_train
    return batches
