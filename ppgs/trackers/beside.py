"""`python -m ppgs.trackers.beside FOLD_FOLDER PID TRACKER...`: feed trackers while process PID trains the run.

Each tracker has a feeder, which is started again after a pause if it fails. Once the training has ended, feeders have
`GRACE_SECONDS` to send the rest; then they are killed. Prints one line for each problem.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from ppgs.errors import PpgsError
from ppgs.runs.events import Tail
from ppgs.runs.folder import RunFolder
from ppgs.trackers.feeder import failure_of, start_feeder

GRACE_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 600.0
# Below the training's processes, which share the CPUs.
_NICENESS = 10


class _Kept:
    """A feeder that is kept running."""

    def __init__(self, run: RunFolder, tracker: str) -> None:
        self._run, self._tracker = run, tracker
        self._process: subprocess.Popen[bytes] | None = None
        self._pause, self._start_at = _FIRST_PAUSE, 0.0
        self._reported = ""

    def keep_running(self) -> None:
        """Start it, or start it again after a pause if it has failed."""
        self._note_failure()
        if self._process is None and time.monotonic() >= self._start_at:
            self._start()

    def _note_failure(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._report(str(failure_of(self._tracker, self._run.trackers, self._process.returncode)))
            self._process, self._start_at = None, time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _start(self) -> None:
        try:
            self._process = start_feeder(self._run, self._tracker, self._run.trackers)
        except OSError as problem:
            self._report(str(problem))
            self._start_at = time.monotonic() + _LONGEST_PAUSE

    def request_end(self) -> None:
        """Have it send what is left and end, started again where it has failed and waits."""
        self._note_failure()
        if self._process is None:
            self._start()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def end(self, until: float) -> None:
        """Wait for its end, and kill it and what it started if it is still running at `until`."""
        if self._process is None:
            return
        try:
            code = self._process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._report(f"was killed because it was still running {GRACE_SECONDS:.0f} s after the training")
            return
        if code != 0:
            self._report(str(failure_of(self._tracker, self._run.trackers, code)))

    def _report(self, problem: str) -> None:
        if problem != self._reported:
            self._reported = problem
            sys.stdout.write(f"{self._tracker}: {problem}\n")
            sys.stdout.flush()


def feed_beside(run: RunFolder, pid: int, trackers: list[str]) -> None:
    """Feed the trackers until the training has ended, and for a limited time after it."""
    kept = [_Kept(run, tracker) for tracker in trackers]
    tail, has_trained = Tail(run.events), False
    try:
        training = psutil.Process(pid)
        while training.is_running() and training.status() != psutil.STATUS_ZOMBIE:
            # A run that fails before it trains may be removed: until then nothing is written to its folder.
            has_trained = has_trained or any(record["type"] == "run_started" for record in tail.read())
            for one in kept if has_trained else ():
                one.keep_running()
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        pass
    has_trained = has_trained or any(record["type"] == "run_started" for record in tail.read())
    for one in kept if has_trained else ():
        one.request_end()
    until = time.monotonic() + GRACE_SECONDS
    for one in kept:
        one.end(until)


def main() -> None:
    """Feed the trackers of the command line."""
    os.nice(_NICENESS)
    try:
        feed_beside(RunFolder(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
    except (PpgsError, OSError) as problem:
        sys.stdout.write(f"trackers: {problem}\n")


if __name__ == "__main__":
    main()
