"""`runs`: lists runs and their status."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ppgs.errors import RunError
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.older import OlderRuns
from ppgs.runs.queue import waits
from ppgs.runs.registry import find_runs, is_interrupted
from ppgs.runs.stalled import stalled_since
from ppgs.runs.state import RunState


@dataclass(frozen=True)
class RunRow:
    """One run: manifest, folder, state folded from its event log, and whether its data have changed since."""

    manifest: Manifest
    path: Path
    status: str
    state: RunState
    # When a live run last made progress, if that is too long ago.
    stalled_since: float | None = None
    older_data: bool | None = None


def list_runs(results: Path, preprocessed: Path | None = None) -> list[RunRow]:
    """Return all runs under nnUNet_results, oldest first; `interrupted` means that a run's process is gone.

    With nnUNet_preprocessed, rows also say whether a run was trained on older data than are prepared now.
    """
    is_older = OlderRuns(preprocessed) if preprocessed is not None else lambda _: None
    return [replace(_row(run, manifest), older_data=is_older(manifest)) for run, manifest in find_runs(results)]


def row_of(run: RunFolder) -> RunRow | None:
    """Return one run; None if it is absent or unreadable."""
    try:
        return _row(run, read_manifest(run))
    except RunError:
        return None


def _row(run: RunFolder, manifest: Manifest) -> RunRow:
    gone = is_interrupted(run, manifest) or (manifest.status == "queued" and not waits(run, manifest))
    status = "interrupted" if gone else manifest.status
    state = RunState().apply_all(read_events(run.events))
    live = not gone and is_held(run.lock) is not None
    if not live:
        state.leave_validation()
    return RunRow(manifest, run.path, status, state, stalled_since(state, time.time()) if live else None)
