"""`resume`: which run to continue, and whether it can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ppgs.errors import NoCheckpoint, RunError, RunLocked
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import read_manifest
from ppgs.runs.queue import job_of, waits
from ppgs.runs.registry import find_run, newest_unfinished
from ppgs.tasks import Roots


def choose_run(given: str | None, root: Path | None, environ: Mapping[str, str]) -> tuple[RunFolder, Roots]:
    """The run to work with and nnU-Net's folders for it.

    A run that is given as a folder brings its root along, so that a copy elsewhere is continued there, unless
    `--root` says otherwise.
    """
    roots = Roots.choose(root, environ)
    run = newest_unfinished(roots.results) if given is None else find_run(given, roots.results)
    if root is None and run.results != roots.results:
        around = Roots.under(run.results.parent)
        roots = around if around.results == run.results else Roots(roots.raw, roots.preprocessed, run.results)
    return run, roots


def check_resumable(run: RunFolder) -> None:
    """Raise `RunError` (or a kind of it) when the run cannot be continued."""
    manifest = read_manifest(run)
    owner = is_held(run.lock)
    if owner is not None:
        raise RunLocked(
            f"the run is held by process {owner.pid} on {owner.host}", run.path, f"ppgs monitor {manifest.name}"
        )
    if waits(run, manifest):
        job = job_of(run) or "unknown"
        raise RunLocked(f"the run waits in Slurm as job {job}", run.path, f"scancel {job} takes it from there")
    if manifest.status == "finished":
        raise RunError(f"the run '{manifest.name}' is finished", run.path, "'ppgs predict' uses it")
    has_checkpoint = run.checkpoint_final.is_file() or run.checkpoint_latest.is_file()
    if not has_checkpoint and any(r["type"] == "checkpoint_saved" for r in read_events(run.events)):
        raise NoCheckpoint("the run's checkpoint is gone", run.checkpoint_latest, "restore it from a backup")
