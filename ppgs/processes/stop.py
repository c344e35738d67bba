"""Requests to stop: the first stop signal that a process gets."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from ppgs.errors import StoppedEarly
from ppgs.processes.signals import accept, heard, postponed

# Longer than a raised exception needs to unwind; after it the main thread waits in code that takes no exception.
_PATIENCE_SECONDS = 10.0


class Stop:
    """Remembers the first stop signal; raises it immediately while there is nothing to save (`interrupt`).

    `force` is called from a thread when this process is still there some seconds after that. A forked child has none
    of this: see `guarded_forks`.
    """

    def __init__(self, force: Callable[[str], None]) -> None:
        self.reason: str | None = None
        self.interrupt = True
        self._force = force
        self._process = os.getpid()

    def install(self) -> None:
        """Handle the stop signals from now on; under nohup a hang-up stays ignored."""
        for number in heard():
            signal.signal(number, self._handle)
        accept()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A child that was forked without the guard ends as it would by default.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.reason is not None or postponed(number, frame):
            return
        self.reason = signal.Signals(number).name
        if self.interrupt:
            timer = threading.Timer(_PATIENCE_SECONDS, self._give_up, [f"stopped on request ({self.reason})"])
            timer.daemon = True
            timer.start()
            raise StoppedEarly(f"stopped on request ({self.reason})")

    def _give_up(self, reason: str) -> None:
        if os.getpid() == self._process:
            self._force(reason)
