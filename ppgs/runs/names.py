"""Names of runs, read from their manifests without validation, which would be too slow for completion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ppgs.runs.folder import RunFolder

# Statuses of a run that a process works on.
WORKING = ("preparing", "training", "validating")
_NAME = re.compile(r"[\w.+-]+")


def run_folders(results: Path) -> Iterator[RunFolder]:
    """Yield the folders of all runs under nnUNet_results, readable or not."""
    for path in results.glob("Dataset*/*/fold_*/ppgs/run.json"):
        yield RunFolder(path.parent.parent)


def run_names(results: Path) -> dict[str, str]:
    """Return status by name, sorted by name; unreadable runs are skipped."""
    found = {}
    for run in run_folders(results):
        try:
            manifest = json.loads(run.manifest.read_bytes())
            name, status = manifest["name"], manifest["status"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(name, str) and isinstance(status, str) and _NAME.fullmatch(name) and status.isalpha():
            found[name] = status
    return dict(sorted(found.items()))
