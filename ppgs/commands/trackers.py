"""Trackers fed during a training, or from a finished run (`runs export-logs`)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ppgs.runs.folder import RunFolder
from ppgs.runs.registry import find_run
from ppgs.tasks import Roots
from ppgs.trackers import chosen_trackers
from ppgs.trackers.beside import GRACE_SECONDS
from ppgs.trackers.feeder import failure_of, start_feeder

# The process beside the training ends by itself; this is for a machine too busy to run it.
_WAIT_SECONDS = 2 * GRACE_SECONDS


class TrackersBeside:
    """The process that feeds trackers during a training, as seen by the command that started both."""

    def __init__(self, run: RunFolder, trackers: tuple[str, ...], training: int) -> None:
        """Start the process; do nothing without trackers. Never raises: the training has begun."""
        self._process: subprocess.Popen[bytes] | None = None
        self._problems, self._read = run.trackers / "problems.log", 0
        self._failure: list[str] = []
        if not trackers:
            return
        command = [sys.executable, "-m", "ppgs.trackers.beside", str(run.path), str(training), *trackers]
        try:
            run.trackers.mkdir(exist_ok=True)
            with self._problems.open("ab") as log:
                self._read = log.tell()
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as problem:
            self._failure = [f"the trackers could not be started: {problem}"]

    def news(self) -> list[str]:
        """Return new problems, one line for each."""
        lines, self._failure = self._failure, []
        if self._process is None:
            return lines
        try:
            with self._problems.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return lines
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return lines + whole.decode("utf-8", "replace").splitlines()

    def wait(self) -> None:
        """Wait after the training's end until the trackers have received the rest, or are killed."""
        if self._process is None:
            return
        try:
            self._process.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self._process is not None:
            self._process.kill()


def export_logs(given: str, to: str, output: Path | None, root: Path | None) -> tuple[RunFolder, Path]:
    """Send trackers what they lack of a run. Returns the run and the trackers' folder.

    Raises `BadInput`, `RunError`, or whatever error a tracker ended with.
    """
    run = find_run(given, Roots.choose(root, os.environ).results)
    trackers = chosen_trackers(to, {}, "--to")
    folder = (run.trackers if output is None else output).absolute()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for tracker in trackers:
        process = start_feeder(run, tracker, folder)
        process.communicate()
        if process.returncode != 0:
            error = failure_of(tracker, folder, process.returncode)
            error.problems = (replace(error.problems[0], what=f"{tracker}: {error}"),)
            raise error
    return run, folder
