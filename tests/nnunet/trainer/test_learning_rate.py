from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppgs.nnunet.trainer.learning_rate import CurriculumRate, built_for
from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.replan import in_parts, with_all_settled
from tests.helpers.facts import HIPPOCAMPUS as FACTS

EPOCHS = 60


def rates(schedule: Schedule, *, wrapped: bool) -> list[float]:
    """The learning rate of every epoch, as the trainer sets it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
    scheduler = PolyLRScheduler(optimizer, 0.01, built_for(schedule))
    stepped = CurriculumRate(scheduler, optimizer, lambda: schedule) if wrapped else scheduler
    found = []
    for epoch in range(schedule.epochs):
        stepped.step(epoch)
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def test_the_default_is_nnunets_learning_rate_to_the_bit() -> None:
    schedule = resolve(Recipe(epochs=EPOCHS), FACTS)
    assert rates(schedule, wrapped=True) == rates(schedule, wrapped=False)


@pytest.mark.parametrize(
    "rate",
    [
        LearningRate(decay="work"),
        LearningRate(decay="work", warmup=7),
        LearningRate(warmup=7),
        LearningRate(restart_at_stage=True),
    ],
)
def test_the_schedules_learning_rate_is_what_the_optimiser_gets(rate: LearningRate) -> None:
    schedule = resolve(Recipe(epochs=EPOCHS, learning_rate=rate), FACTS)
    expected = [0.01 * schedule.learning_rate_at(epoch) for epoch in range(EPOCHS)]
    assert rates(schedule, wrapped=True) == pytest.approx(expected)


def cosine(optimizer: Any, epochs: int) -> Any:
    """The scheduler of `nnUNetTrainerCosAnneal`, as it builds it."""
    return CosineAnnealingLR(optimizer, T_max=epochs)


def poly(optimizer: Any, epochs: int) -> Any:
    return PolyLRScheduler(optimizer, 0.01, epochs)


@pytest.mark.parametrize("make", [cosine, poly])
def test_every_scheduler_ends_where_a_schedule_that_is_planned_on_the_way_does(make: Callable[..., Any]) -> None:
    whole = resolve(Recipe(epochs=EPOCHS), FACTS)
    schedule = with_all_settled(in_parts(whole))
    found = []
    for one in (schedule, whole):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
        rate = CurriculumRate(make(optimizer, built_for(one)), optimizer, partial(Schedule.model_copy, one))
        for epoch in range(EPOCHS):
            rate.step(epoch)
            found.append(float(optimizer.param_groups[0]["lr"]))
    assert found[:EPOCHS] == pytest.approx(found[EPOCHS:])
    assert found[0] == 0.01 and found[EPOCHS - 1] < 0.0006
