"""The learning rate of a curriculum: nnU-Net's own schedule, evaluated at the position of the decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppgs.schedule import Schedule


class CurriculumRate:
    """Wraps the learning-rate scheduler of an nnU-Net trainer; replaces it in `on_train_epoch_start`.

    nnU-Net steps its schedulers with the epoch's number. They are stepped here with `Schedule.decay_epoch_at`, which
    may be a fraction, and the result is multiplied by the warm-up. A schedule that is planned while it trains has no
    fixed number of epochs: nnU-Net's scheduler then counts shares of the decay.
    """

    def __init__(self, scheduler: Any, optimizer: Any, schedule: Callable[[], Schedule]) -> None:
        self._scheduler, self._optimizer, self._schedule = scheduler, optimizer, schedule
        self._counts_shares = schedule().decayed is not None
        if self._counts_shares:
            scheduler.max_steps = 1

    def step(self, epoch: int) -> None:
        """Set the learning rates of an epoch (from 0)."""
        schedule = self._schedule()
        self._scheduler.step(schedule.decay_share_at(epoch) if self._counts_shares else schedule.decay_epoch_at(epoch))
        for group in self._optimizer.param_groups:
            group["lr"] *= schedule.warmup_at(epoch)
