"""`--patience`: the last stage ends early when its moving average of the Dice stops improving."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ppgs.nnunet.trainer.settings import Settings


class PatienceSpent(Exception):
    """Ends nnU-Net's loop over epochs."""


def last_better(averages: Sequence[float]) -> int:
    """Return the index of the last value that is better than all before it; NaN is never better, 0 if none is."""
    best = 0
    for index, value in enumerate(averages):
        if value > averages[best] or (math.isnan(averages[best]) and not math.isnan(value)):
            best = index
    return best


def check_patience(settings: Settings, log: dict[str, list[Any]], epochs_done: int) -> None:
    """Raise `PatienceSpent` as `log`, which checkpoints hold, decides: the same after a resume, and on all ranks."""
    schedule, patience = settings.schedule, settings.patience
    if patience is None or epochs_done >= schedule.epochs:
        return
    # A training with a budget has the last stage in parts, which are planned one after the other.
    parts = itertools.takewhile(schedule.stages[-1].like, reversed(schedule.stages))
    first = schedule.first_epoch(len(schedule.stages) - len(list(parts)))
    averages = log["ema_fg_dice"][first:epochs_done]
    best = last_better(averages)
    if len(averages) - 1 - best >= patience:
        settings.emit(
            "early_stopping",
            epoch=epochs_done - 1,
            patience=patience,
            best_epoch=first + best,
            ema_dice=float(averages[best]),
        )
        raise PatienceSpent
