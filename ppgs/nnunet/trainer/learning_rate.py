"""The learning rate of a curriculum: nnU-Net's own schedule, evaluated at the position of the decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppgs import upstream
from ppgs.schedule import Schedule


class CurriculumRate:
    """Wraps the learning-rate scheduler of an nnU-Net trainer; replaces it in `on_train_epoch_start`.

    nnU-Net steps its schedulers with the epoch's number. They are stepped here with `Schedule.decay_epoch_at`, which
    may be a fraction, and the result is multiplied by the warm-up. The scheduler must have been built for
    `built_for(schedule)` epochs.
    """

    def __init__(self, scheduler: Any, optimizer: Any, schedule: Callable[[], Schedule]) -> None:
        self._scheduler, self._optimizer, self._schedule = scheduler, optimizer, schedule

    def step(self, epoch: int) -> None:
        """Set the learning rates of an epoch (from 0)."""
        schedule = self._schedule()
        planned = schedule.decayed is not None
        self._scheduler.step(
            built_for(schedule) * schedule.decay_share_at(epoch) if planned else schedule.decay_epoch_at(epoch)
        )
        for group in self._optimizer.param_groups:
            group["lr"] *= schedule.warmup_at(epoch)


def built_for(schedule: Schedule) -> int:
    """Return the number of epochs that a scheduler must be built for.

    A schedule that is planned while it trains has no fixed number of its own: nnU-Net's default stands for its end, the
    same in every resumed process, and the share of the decay that is over for the epoch.
    """
    return schedule.epochs if schedule.decayed is None else upstream.EPOCHS
