from __future__ import annotations

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from ppgs.nnunet.trainer.learning_rate import CurriculumRate
from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.model import LearningRate
from tests.helpers.facts import HIPPOCAMPUS as FACTS

EPOCHS = 60


def rates(schedule: Schedule, *, wrapped: bool) -> list[float]:
    """The learning rate of every epoch, as the trainer sets it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.01)
    scheduler = PolyLRScheduler(optimizer, 0.01, schedule.epochs)
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
