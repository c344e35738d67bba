"""Runs that wait in a Slurm queue: their job ids, and whether Slurm still has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ppgs.runs.atomic import write_text
from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import Manifest, Status, read_manifest, write_manifest

# Seconds for which an answer of `squeue` holds, and for which none does.
_FRESH, _SILENT = 5.0, 60.0
# Seconds that submitting a run may take.
_SUBMITTING = 600.0
_answer: tuple[float, frozenset[str] | None] | None = None


def mark(run: RunFolder, status: Status, event: str, **fields: Any) -> None:
    """Record in manifest and event log whether the run is queued; raises `RunLocked`."""
    with Lock(run.lock), EventLog(run.events) as log:
        manifest = read_manifest(run)
        manifest.status, manifest.pid = status, None
        write_manifest(run, manifest)
        log.append(event, **fields)


def write_job(run: RunFolder, job: str) -> None:
    """Record the id of the Slurm job that trains the run (`123`, or `123_4` in an array)."""
    write_text(run.own / "slurm.json", json.dumps({"job": job}) + "\n")


def job_of(run: RunFolder) -> str | None:
    """Return the id of the run's Slurm job; None if it never had one."""
    try:
        return str(json.loads((run.own / "slurm.json").read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def jobs_known(jobs: Iterable[str]) -> frozenset[str] | None:
    """Return the jobs that are pending or running according to `squeue`; None if it cannot be called."""
    global _answer
    # Lists of runs ask for one job after another: Slurm, which may take seconds to answer or not to, is asked once.
    if _answer is None or time.monotonic() > _answer[0]:
        listed, begun = _squeue(), time.monotonic()
        _answer = (begun + (_FRESH if listed is not None else _SILENT), listed)
    listed = _answer[1]
    return None if listed is None else listed & frozenset(jobs)


def _squeue() -> frozenset[str] | None:
    squeue = shutil.which("squeue")
    if squeue is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [squeue, "--noheader", "--array", "--format=%i"], capture_output=True, text=True, timeout=10
        )
        if done.returncode == 0:
            return frozenset(done.stdout.split())
    return None


def waits(run: RunFolder, manifest: Manifest) -> bool:
    """Return whether the run waits in a queue, as far as is known on this machine."""
    if manifest.status != "queued":
        return False
    if (job := job_of(run)) is None:
        # Being submitted, unless that was broken off.
        return time.time() - manifest.updated < _SUBMITTING
    known = jobs_known([job])
    return known is None or bool(known)
