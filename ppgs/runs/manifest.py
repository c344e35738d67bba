"""`run.json`: what a run is, what it was asked to do, and where it stands."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppgs.errors import DamagedRun, NoSuchRun, RunError
from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder

Status = Literal["queued", "preparing", "training", "validating", "finished", "stopped", "failed"]
UNFINISHED: frozenset[Status] = frozenset(("preparing", "training", "validating", "stopped", "failed"))


class Request(BaseModel):
    """What was asked for: enough to prepare the task and to make the schedule anew.

    `schedule` is the text of the schedule file or recipe; options that were not given are None. `previous_stage` names
    the model folder of a cascade's first stage where it is not the one that was trained alike; `npz` keeps the
    validation's probabilities; `as_prepared` continues on prepared cases although their raw data changed. With
    `geometry` voxel, labels and channels may lie elsewhere than their image. `gpus` processes train together, which
    are started anew `restarts` times when one of them dies.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    kind: Literal["demo", "decathlon", "nnunet"]
    source: str | None = None
    schedule: str
    schedule_name: str
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int | None = None
    mirroring: str | None = None
    gpu_memory: str | None = None
    fit: bool = False
    device: str = "auto"
    gpus: int = 1
    restarts: int = 0
    workers: int | None = None
    loader_timeout: float = 900.0
    # A run whose manifest does not say goes on as it began: in nnU-Net's way.
    precision: Literal["auto", "nnunet"] = "nnunet"
    augmentation: Literal["batchwise", "nnunet"] = "nnunet"
    seed: int = 0
    energy: bool = True
    skip_nonfinite: bool = False
    previous_stage: str | None = None
    npz: bool = False
    # As above: where a run does not say, nobody looked at where its labels lie.
    geometry: Literal["header", "voxel"] = "voxel"
    as_prepared: bool = False


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
    status: Status = "preparing"
    pid: int | None = None
    host: str | None = None
    created: float = Field(default_factory=time.time)
    updated: float = Field(default_factory=time.time)
    error: dict[str, Any] | None = None
    request: Request


def read_manifest(run: RunFolder) -> Manifest:
    """The manifest of a run; raises `NoSuchRun` where there is none, `DamagedRun` where it cannot be read."""
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
    """What there is to say of a folder that went while its run trained."""
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
    """Note this process as the one that works on the run."""
    manifest.status = "preparing"
    manifest.pid = os.getpid()
    manifest.host = socket.gethostname()
