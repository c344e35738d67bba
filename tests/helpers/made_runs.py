"""Folders of runs in which nothing was trained: a manifest, and what a test adds."""

from __future__ import annotations

from typing import Any

from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, write_manifest
from ppgs.runs.request import TrainingRequest


def made(run: RunFolder, name: str, status: str, **changes: Any) -> RunFolder:
    """The run with a manifest of that name and status; `changes` are to the manifest's other fields."""
    run.own.mkdir(parents=True)
    fields: dict[str, Any] = {
        "task": "demo",
        "dataset": "Dataset001_A",
        "plans": "nnUNetPlans",
        "configuration": "3d_fullres",
        "fold": 0,
        "trainer": "T",
        "schedule": "efficiency",
        "request": TrainingRequest(task="demo", kind="demo", schedule="mode: efficiency", schedule_name="efficiency"),
    }
    write_manifest(run, Manifest(name=name, status=status, **{**fields, **changes}))  # type: ignore[arg-type]
    return run
