"""Starts the processes that train a run on several GPUs of this machine, with PyTorch's elastic launcher.

`python -m ppgs.nnunet.process.launch FOLD_FOLDER --gpus N [--restarts K] [--with-parent PID]`. It does nothing
but watch them: when one dies, the launcher ends the others and, K times, restarts all of them from the last
checkpoint. What rank 0 could not report any more is written into the manifest and the event log here.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from ppgs.errors import ExitCode, PpgsError, RankLost, from_record
from ppgs.formatting import exit_text
from ppgs.processes.signals import STOP_SIGNALS, accept
from ppgs.processes.worker import die_with_parent
from ppgs.runs.disk_space import storage_failure
from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import read_manifest, write_manifest


class Launch:
    """One start of all processes, until the last of them has ended."""

    def __init__(self, run: RunFolder, processes: int, restarts: int) -> None:
        self.run, self._processes, self._restarts = run, processes, restarts
        self._before = read_manifest(run).updated
        self._asked: int | None = None
        self._told: set[psutil.Process] = set()
        self._lost: str | None = None

    def main(self) -> ExitCode:
        """Train; return the command's exit code."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._pass_on)
        accept()
        # In a thread, as in the main one the launcher takes the signals: it would kill what is about to save.
        thread = threading.Thread(target=self._train, name="launcher")
        thread.start()
        while thread.is_alive():
            thread.join(0.5)
            # Also those that were not there yet.
            self._tell()
        return self._outcome()

    def _train(self) -> None:
        try:
            # Here, as it takes seconds, in which signals must be heard already.
            self._launch()
        except Exception as problem:  # of the launcher's own, in its many kinds
            self._lost = f"PyTorch's launcher failed: {problem}"

    def _launch(self) -> None:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        if self._asked is not None:
            return
        # Seconds until processes that ignore the signal are killed: the first one may be writing a checkpoint.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "60")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self._processes,
            run_id=f"ppgs-{uuid.uuid4().hex}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=self._restarts,
            logs_specs=DefaultLogsSpecs(),
        )
        leader = ("-m", "ppgs.nnunet.process", str(self.run.path))
        command = (*leader, "--launched", "--with-parent", str(os.getpid()))
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            self._lost = f"process {rank} {exit_text(failure.exitcode, named=True)}"

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        # A second signal is for those that have had the first.
        self._told.clear()
        self._tell()

    def _tell(self) -> None:
        """Pass the signal that was received on to every process that has not had it."""
        if self._asked is None:
            return
        for child in psutil.Process().children():
            if child in self._told:
                continue
            self._told.add(child)
            try:
                child.send_signal(self._asked)
            except psutil.Error:
                continue

    def _outcome(self) -> ExitCode:
        """Return the exit code recorded in the manifest; record it first if no process did."""
        manifest = read_manifest(self.run)
        untouched = manifest.updated == self._before
        if untouched and self._lost is None and self._asked is None:
            # Another process is training the run, or it cannot be written; the log has the reason.
            return ExitCode.UNUSABLE_RUN
        if untouched or manifest.status not in ("finished", "stopped", "failed"):
            asked = None if self._asked is None else signal.Signals(self._asked).name
            reason = f"stopped on request ({asked})" if asked else self._lost or "all processes ended"
            lost = RankLost(reason, self.run.log, "'ppgs resume' continues from the last checkpoint")
            manifest.status, manifest.pid, manifest.error = "stopped", None, lost.to_record()
            try:
                with Lock(self.run.lock), EventLog(self.run.events) as log:
                    self.run.reserve.unlink(missing_ok=True)
                    write_manifest(self.run, manifest)
                    log.append("run_stopped", durable=True, reason=reason, error=manifest.error)
            except OSError as problem:
                # The parent process sees the state of the file system itself.
                if storage_failure(problem, self.run.path) is None:
                    raise
        if manifest.status == "failed":
            return from_record(manifest.error or {}).exit_code
        return ExitCode.STOPPED if manifest.status == "stopped" else ExitCode.DONE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--with-parent", type=int)
    given: Any = parser.parse_args()
    if given.with_parent is not None:
        die_with_parent(given.with_parent)
    try:
        code = Launch(RunFolder(given.run), given.gpus, given.restarts).main()
    except PpgsError as error:
        with suppress(OSError):
            sys.stderr.write(f"{error}\n")
        code = error.exit_code
    sys.exit(int(code))


if __name__ == "__main__":
    main()
