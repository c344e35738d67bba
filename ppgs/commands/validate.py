"""`validate`: checks that a run can be validated again, and starts the process that does it."""

from __future__ import annotations

from typing import Any

from ppgs.commands.resume import check_free
from ppgs.commands.train.child import TrainingChild
from ppgs.errors import ExitCode, NoCheckpoint, PpgsError, from_record
from ppgs.formatting import exit_text
from ppgs.runs.events import Record
from ppgs.runs.folder import Checkpoint, RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.tasks import Roots


def check_validatable(run: RunFolder, which: Checkpoint) -> None:
    """Raise `RunError` or a subclass if the run cannot be validated with this checkpoint."""
    check_free(run, read_manifest(run))
    if not run.checkpoint(which).is_file():
        there = [name for name in ("final", "best", "latest") if run.checkpoint(name).is_file()]
        remedy = f"this run has: --checkpoint {' or '.join(there)}" if there else "'ppgs resume' trains it on"
        raise NoCheckpoint(f"the run has no {which} checkpoint", run.checkpoint(which), remedy)


class ValidationChild(TrainingChild):
    """The process that validates a run; `ended` receives the records that it wrote."""

    def __init__(self, run: RunFolder, roots: Roots, which: Checkpoint, *, npz: bool = False) -> None:
        super().__init__(run, roots, detached=False, validate=which, npz=npz)
        self._last: Record | None = None

    def note(self, records: list[Record]) -> None:
        for record in records:
            if record["type"] in ("validation_finished", "validation_stopped"):
                self._last = record

    @property
    def result(self) -> Record:
        """The result that it wrote at its end."""
        return self._last or {}

    def _recorded_error(self) -> dict[str, Any] | None:
        error = self.result.get("error")
        return error if isinstance(error, dict) else None

    def raise_failure(self) -> None:
        """Raise the error of an ended process; return if it finished or was stopped on request."""
        code = self.process.returncode
        if code != ExitCode.DONE and not self.result:
            self._raise_unrecorded()
        if code in (ExitCode.DONE, ExitCode.STOPPED):
            return
        if (error := self._recorded_error()) is not None:
            raise from_record(error)
        raise PpgsError(f"the validation process {exit_text(code)}", self.run.log, "the log has the details")
