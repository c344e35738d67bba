"""Control over trainings from the monitor, passed in by the command that opens it."""

from __future__ import annotations

from typing import Protocol

from ppgs.runs.folder import RunFolder


class Control(Protocol):
    """Stops and resumes runs. All methods raise `PpgsError` when they cannot."""

    def stop(self, run: RunFolder) -> None:
        """Ask the run's process to stop with a checkpoint."""

    def resume(self, run: RunFolder) -> None:
        """Start a process that continues the run and outlives the monitor."""

    def works_on(self, run: RunFolder) -> bool:
        """Return whether a process that was started here still works on the run."""
