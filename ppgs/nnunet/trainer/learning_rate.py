"""The learning rate of a curriculum: nnU-Net's own schedule, asked for the point that the decay has reached."""

from __future__ import annotations

from typing import Any

from ppgs.schedule import Schedule


class CurriculumRate:
    """Wraps the learning-rate scheduler of an nnU-Net trainer; stands in for it in `on_train_epoch_start`.

    nnU-Net steps its schedulers with the epoch's number. They are stepped here with `Schedule.decay_epoch_at`, which
    may be a fraction, and the result is multiplied by the warm-up.
    """

    def __init__(self, scheduler: Any, optimizer: Any, schedule: Schedule) -> None:
        self._scheduler, self._optimizer, self._schedule = scheduler, optimizer, schedule

    def step(self, epoch: int) -> None:
        """Set the learning rates of an epoch (from 0)."""
        self._scheduler.step(self._schedule.decay_epoch_at(epoch))
        for group in self._optimizer.param_groups:
            group["lr"] *= self._schedule.warmup_at(epoch)
