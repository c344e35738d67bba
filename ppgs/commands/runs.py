"""`runs`: what runs there are and where they stand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ppgs.errors import RunError
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.queue import waits
from ppgs.runs.registry import find_runs, is_interrupted
from ppgs.runs.stalled import stalled_since
from ppgs.runs.state import RunState


@dataclass(frozen=True)
class RunRow:
    """One run: its manifest, where it is, and what its event log adds up to."""

    manifest: Manifest
    path: Path
    status: str
    state: RunState
    # When a live run last made progress, if that is too long ago.
    stalled_since: float | None = None


def list_runs(results: Path) -> list[RunRow]:
    """All runs under nnUNet_results, oldest first; `interrupted` says that a run's process is gone."""
    return [_row(run, manifest) for run, manifest in find_runs(results)]


def row_of(run: RunFolder) -> RunRow | None:
    """One run; None where there is none that can be read."""
    try:
        return _row(run, read_manifest(run))
    except RunError:
        return None


def _row(run: RunFolder, manifest: Manifest) -> RunRow:
    gone = is_interrupted(run, manifest) or (manifest.status == "queued" and not waits(run, manifest))
    status = "interrupted" if gone else manifest.status
    state = RunState().apply_all(read_events(run.events))
    live = not gone and is_held(run.lock) is not None
    return RunRow(manifest, run.path, status, state, stalled_since(state, time.time()) if live else None)
