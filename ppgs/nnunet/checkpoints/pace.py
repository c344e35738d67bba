"""The rule by which the end of an epoch becomes a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

# Without a checkpoint for longer than this a kill would lose more than an epoch or this many seconds.
LONGEST_SECONDS = 60.0
# More frequent checkpoints may take this share of the time.
SHARE = 0.05


class Pace:
    """Decides at the end of each epoch whether a checkpoint is due.

    It is where the checkpoints take at most 5 % of the time, and wherever the next epoch would end more than a minute
    after the last one. So a kill loses at most an epoch or a minute of training, whichever is longer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._saved = self._ended = clock()

    def ends_epoch(self, cost: float) -> bool:
        """Return whether a checkpoint is due at an epoch's end; `cost` is the seconds that one takes, 0 if unknown.

        Call it once after every epoch: the next one is expected to take as long.
        """
        now = self._clock()
        epoch, self._ended = now - self._ended, now
        since = now - self._saved
        return since + epoch > LONGEST_SECONDS or cost <= SHARE * since

    def saved(self) -> None:
        """Start counting again: the state of the training has become a checkpoint."""
        self._saved = self._clock()
