"""The process that trains or validates a run, started and followed by a command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppgs.commands.trackers import TrackersBeside
from ppgs.commands.train.folder import discard, never_began
from ppgs.errors import BadInput, DiskFull, ExitCode, NoSuchRun, PpgsError, RunError, from_record
from ppgs.formatting import exit_text
from ppgs.nnunet.host.environment import as_given, check_numbers, launched
from ppgs.runs.disk_space import failing_storage
from ppgs.runs.events import Record, Tail
from ppgs.runs.folder import Checkpoint, RunFolder
from ppgs.runs.manifest import moved_away, read_manifest
from ppgs.tasks import Roots
from ppgs.trackers import chosen_trackers


class TrainingChild:
    """The process that trains a run, as seen by the command that started it."""

    def __init__(
        self,
        run: RunFolder,
        roots: Roots,
        *,
        detached: bool,
        environ: Mapping[str, str] | None = None,
        validate: Checkpoint | None = None,
        npz: bool = False,
    ) -> None:
        """Start it. Unless `detached`, it ends with this process, however that ends.

        With `validate` it does nothing but validate by that checkpoint; with `npz` it writes probabilities, too.
        """
        check_numbers()
        self.run = run
        self._tail = Tail(run.events)
        self._tail.read_to_end()
        manifest = read_manifest(run)
        self._updated, request = manifest.updated, manifest.request
        trackers = chosen_trackers(request.log, os.environ) if validate is None else ()
        several = request.processes > 1 and launched(os.environ) == 1 and validate is None
        command = [sys.executable, "-m", f"ppgs.nnunet.process{'.launch' if several else ''}", str(run.path)]
        if several:
            command += ["--gpus", str(request.processes), "--restarts", str(request.restarts or 0)]
        if validate is not None:
            command += ["--validate", validate, *(["--npz"] if npz else [])]
        if not detached:
            command += ["--with-parent", str(os.getpid())]
        try:
            log = run.log.open("ab")
        except OSError as problem:
            raise DiskFull.of(problem, run.path) or BadInput(
                f"the run cannot be written ({problem.strerror})", run.path, "mount it writable, or copy it elsewhere"
            ) from None
        with log:
            self._log_began = log.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**as_given(), **roots.environment, "PYTHONUNBUFFERED": "1", **(environ or {})},
                # A new session: a Ctrl-C is for the command, which passes it on once.
                start_new_session=True,
            )
        self.trackers = TrackersBeside(run, trackers, self.process.pid)

    def follow(self, interval: float = 0.2) -> Iterator[list[Record]]:
        """Yield batches of new records (empty ones too, every `interval` seconds) until the process has ended."""
        while True:
            ended = self.process.poll() is not None
            while records := self._tail.read():
                yield records
            if ended:
                return
            yield []
            time.sleep(interval)

    def news(self) -> list[Record]:
        """Return new records without waiting."""
        return self._tail.read_to_end()

    @contextmanager
    def saved_on_error(self) -> Iterator[None]:
        """Stop it with a checkpoint before an error leaves the block: when this process ends, it would be killed."""
        try:
            yield
        except BaseException:
            self.stop()
            self.process.wait()
            raise

    def stop(self) -> None:
        """Ask it to stop with a checkpoint."""
        if self.process.poll() is None:
            self.process.terminate()

    def _has_recorded_its_end(self) -> bool:
        try:
            manifest = read_manifest(self.run)
        except RunError:
            return False
        return manifest.updated != self._updated and manifest.pid is None

    def _raise_unrecorded(self) -> None:
        """Raise the error of a process that could record it nowhere; return if nothing is known of it."""
        code = self.process.returncode
        # A folder that may not be written is not a failure of its file system.
        if code != ExitCode.BAD_INPUT and (failure := failing_storage(self.run.path)) is not None:
            raise failure
        said = self._last_words()
        if said and code in (ExitCode.BAD_INPUT, ExitCode.DOES_NOT_FIT, ExitCode.UNUSABLE_RUN, ExitCode.STOPPED):
            remedy = "remove the cause, then run the same command again"
            problem = {"what": said, "where": str(self.run.log), "remedy": remedy}
            raise from_record({"exit_code": code, "what": said, "problems": [problem]})

    def _last_words(self) -> str:
        """Return the last line that it wrote into the run's log."""
        try:
            with self.run.log.open("rb") as log:
                log.seek(self._log_began)
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stopped_by(self) -> PpgsError | None:
        """Return the error that stopped an ended process; None if it was asked to stop."""
        record = self._recorded_error()
        error = None if record is None else from_record(record)
        return error if error is not None and error.problems[0].remedy else None

    def _recorded_error(self) -> dict[str, Any] | None:
        return read_manifest(self.run).error if self._has_recorded_its_end() else None

    def raise_failure(self) -> None:
        """Raise the error of an ended process; return if it finished or was stopped on request."""
        code = self.process.returncode
        recorded = code == ExitCode.DONE or self._has_recorded_its_end()
        if not recorded:
            self._raise_unrecorded()
        if code in (ExitCode.DONE, ExitCode.STOPPED):
            return
        try:
            manifest = read_manifest(self.run)
        except NoSuchRun:
            raise moved_away(self.run) from None
        if recorded and manifest.status == "failed" and manifest.error is not None:
            error = from_record(manifest.error)
            # Only the log in its folder explains an unforeseen error.
            told = error.exit_code != ExitCode.UNFORESEEN
            if told and manifest.schedule_hash is None and never_began(self.run):
                discard(self.run)
            raise error
        raise PpgsError(
            f"the training process {exit_text(code)}",
            self.run.log,
            f"'ppgs resume {manifest.name}' continues from its checkpoint",
        )
