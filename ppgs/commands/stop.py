"""`stop`: asks the process of a run to save and end, however it was started on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from ppgs.errors import RunError
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Owner, is_held
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.queue import job_of, jobs_known, waits
from ppgs.runs.registry import find_runs
from ppgs.tasks import Roots

_LOOK_SECONDS = 0.2


def working(root: Path | None, environ: Mapping[str, str]) -> list[RunFolder]:
    """Return the runs that a live process works on, on any machine."""
    return [run for run, _ in find_runs(Roots.choose(root, environ).results) if is_held(run.lock) is not None]


def owner_here(run: RunFolder) -> Owner:
    """Return this machine's process that works on the run; raises `RunError` if there is none."""
    owner, job = is_held(run.lock), job_of(run)
    if owner is None:
        if job is not None and waits(run, read_manifest(run)):
            raise RunError("the run waits in the queue", run.path, f"take it out: scancel {job}")
        raise RunError("no process is training this run", run.path)
    if not owner.is_local:
        # The job that it once had may be long over.
        is_job = job is not None and jobs_known([job]) != frozenset()
        there = f"cancel its job: scancel {job}" if is_job else f"stop process {owner.pid} there"
        raise RunError(f"the training runs on {owner.host}", run.path, there)
    return owner


def ask_to_stop(run: RunFolder) -> Owner:
    """Ask the run's process to stop with a checkpoint; raises `RunError` if that is not possible from here."""
    owner = owner_here(run)
    try:
        os.kill(owner.pid, signal.SIGTERM)
    except OSError as problem:
        raise RunError(f"process {owner.pid} cannot be stopped: {problem.strerror}", run.path) from None
    return owner


def ended(run: RunFolder, owner: Owner) -> Manifest:
    """Wait until the process has released the run; return the run's manifest."""
    while is_held(run.lock) == owner:
        time.sleep(_LOOK_SECONDS)
    return read_manifest(run)
