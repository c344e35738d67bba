"""The work of one Slurm job: one run, continued from its current state in a separate process.

Slurm's warning before the time limit or a preemption reaches submitit, which calls `checkpoint` and puts the job back
into the queue. Pickled into the job's folder: keep it small, and its fields readable by later versions.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppgs.commands.train.child import TrainingChild
from ppgs.errors import ExitCode, RunError, StoppedEarly
from ppgs.estimate.training_budget import WARNING
from ppgs.runs.atomic import write_text
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import owner_of
from ppgs.runs.manifest import read_manifest
from ppgs.runs.queue import mark, write_job
from ppgs.tasks import Roots

Progress = tuple[dict[str, int], list[tuple[object, object]], int, int]
# A job that is put back this often without progress in between would be requeued forever.
MAX_IDLE = 3


class TrainingJob:
    """Callable that trains one run in a Slurm job, which is warned `warning` seconds before its time limit."""

    def __init__(self, run: Path, roots: Roots, *, warning: int | None = None, idle: int = 0) -> None:
        self.run_path = str(run)
        self.folders = tuple(roots.environment.values())
        self.warning, self.idle = warning, idle
        self._child: TrainingChild | None = None
        self._ended = False
        self._progress: Progress = ({}, [], 0, 0)

    def __getstate__(self) -> dict[str, Any]:
        return {"run_path": self.run_path, "folders": self.folders, "warning": self.warning, "idle": self.idle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        roots = Roots(*map(Path, state["folders"]))
        self.__init__(  # type: ignore[misc]
            Path(state["run_path"]), roots, warning=state.get("warning"), idle=state["idle"]
        )

    def __call__(self) -> int:
        """Train until the end; raise errors so that Slurm marks the job as failed and dependent jobs do not start."""
        run = RunFolder(Path(self.run_path))
        if read_manifest(run).status == "finished":
            return int(ExitCode.DONE)
        if (job := _own_job(os.environ)) is not None:
            # The command that submitted it may have been broken off before it could.
            write_job(run, job)
        self._drop_own_stale_lock(run)
        self._progress = _progress(run)
        if self.warning is not None:
            os.environ[WARNING] = str(self.warning)
        self._child = TrainingChild(run, Roots(*map(Path, self.folders)), detached=False)
        # submitit ignores SIGTERM, which is all that a cancelled job gets, and a preempted one on some clusters.
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        # Waited for in a thread: the handler of Slurm's signals interrupts the main one and waits too.
        threading.Thread(target=self._await, daemon=True).start()
        while not self._ended:
            time.sleep(0.2)
        self._child.trackers.wait()
        self._child.raise_failure()
        if self._child.process.returncode == ExitCode.STOPPED:
            name = read_manifest(run).name
            raise self._child.stopped_by() or StoppedEarly("the training was stopped", run.path, f"ppgs resume {name}")
        return int(ExitCode.DONE)

    def checkpoint(self) -> Any:
        """Stop with a checkpoint and return the requeued job; None if it makes no progress."""
        from submitit.helpers import DelayedSubmission

        run = RunFolder(Path(self.run_path))
        self._stop()
        while self._child is not None and not self._ended:
            time.sleep(0.2)
        idle = self.idle + 1 if _progress(run) == self._progress else 0
        if idle >= MAX_IDLE:
            return None
        with suppress(RunError):
            status = read_manifest(run).status
            if status == "failed":
                return None
            # A run that has just finished stays finished. Its requeued job ends immediately, and dependent jobs start.
            if status != "finished":
                mark(run, "queued", "run_queued", where="Slurm")
        roots = Roots(*map(Path, self.folders))
        return DelayedSubmission(TrainingJob(run.path, roots, warning=self.warning, idle=idle))

    def _stop(self) -> None:
        if self._child is not None and not self._ended:
            # Not Popen.terminate, whose lock the interrupted thread may hold.
            with suppress(ProcessLookupError):
                os.kill(self._child.process.pid, signal.SIGTERM)

    def _await(self) -> None:
        assert self._child is not None
        self._child.process.wait()
        self._ended = True

    def _drop_own_stale_lock(self, run: RunFolder) -> None:
        """Release a lock of this job's last attempt on another node: a requeued job runs nowhere else."""
        note, job = run.own / "slurm_attempt", os.environ.get("SLURM_JOB_ID", "")
        here = f"{job} {socket.gethostname()}"
        owner = owner_of(run.lock)
        with suppress(OSError):
            if owner is not None and not owner.is_local and note.read_text() == f"{job} {owner.host}":
                run.lock.unlink(missing_ok=True)
        write_text(note, here)


def _own_job(environ: Mapping[str, str]) -> str | None:
    """Return the id of this process's Slurm job as `squeue` lists it; None if there is none."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID")


def _progress(run: RunFolder) -> Progress:
    """Return what differs once anything lasting was done: cases prepared, iterations saved, epochs, cases validated."""
    records = read_events(run.events)
    validated = [int(r.get("done") or 0) for r in records if r["type"] == "validation_progress"]
    saved = [(r.get("epoch"), r.get("iteration")) for r in records if r["type"] == "checkpoint_saved"]
    left: dict[str, int] = {}
    for record in records:
        if record["type"] == "preparing" and (total := int(record.get("total") or 0)) > 0:
            step, rest = str(record.get("step")), total - int(record.get("done") or 0)
            left[step] = min(rest, left.get(step, rest))
    epochs = len([r for r in records if r["type"] == "epoch_finished"])
    return left, saved[-1:], epochs, max(validated, default=0)
