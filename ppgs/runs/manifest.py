"""`run.json`: the identity of a run, its request, and its status."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ppgs.errors import DamagedRun, NoSuchRun, RunError
from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder
from ppgs.runs.request import TrainingRequest, as_stored

Status = Literal["queued", "preparing", "training", "validating", "finished", "stopped", "failed"]
UNFINISHED: frozenset[Status] = frozenset(("preparing", "training", "validating", "stopped", "failed"))


class Manifest(BaseModel):
    """The content of `run.json`."""

    model_config = ConfigDict(extra="ignore")

    v: Literal[1] = 1
    name: str
    task: str
    dataset: str
    plans: str
    configuration: str
    fold: int | Literal["all"]
    trainer: str
    schedule: str
    schedule_hash: str | None = None
    # All that the run was trained with, where a resume changed the number of epochs.
    schedules: list[str] = Field(default_factory=list)
    seed: int = 0
    device: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    origin: dict[str, str] = Field(default_factory=dict)
    # The checkpoint that the run started from: its path, a digest of its weights, its dataset, plans, configuration.
    pretrained: dict[str, str] | None = None
    status: Status = "preparing"
    pid: int | None = None
    host: str | None = None
    created: float = Field(default_factory=time.time)
    updated: float = Field(default_factory=time.time)
    error: dict[str, Any] | None = None
    request: TrainingRequest

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("request"), dict):
            return {**raw, "request": as_stored(raw["request"], raw)}
        return raw


def read_manifest(run: RunFolder) -> Manifest:
    """Read the manifest of a run; raises `NoSuchRun` if there is none, `DamagedRun` if it is unreadable."""
    try:
        text = run.manifest.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchRun("there is no run here", run.path, "'ppgs runs' lists all runs") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DamagedRun(f"the manifest cannot be read: {problem}", run.manifest) from None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        key = ".".join(str(p) for p in first["loc"]) or "file"
        raise DamagedRun(
            f"the manifest is damaged: {key}: {first['msg']}", run.manifest, "restore run.json from a backup"
        ) from None


def moved_away(run: RunFolder) -> RunError:
    """Return the error for a folder that disappeared while its run trained."""
    return RunError(
        "the run's folder was moved or removed while it trained",
        run.path,
        "move it back; its last checkpoint is whole, and 'ppgs resume' continues from it",
    )


def write_manifest(run: RunFolder, manifest: Manifest) -> None:
    """Write `run.json` atomically, with the time of the change."""
    manifest.updated = time.time()
    write_text(run.manifest, manifest.model_dump_json(indent=2) + "\n")


def claim(manifest: Manifest) -> None:
    """Record this process as the one that works on the run."""
    manifest.status = "preparing"
    manifest.pid = os.getpid()
    manifest.host = socket.gethostname()
