"""The weights of `--pretrained`: finds their file, and keeps the copy that the run starts from."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ppgs.errors import BadInput, NoCheckpoint
from ppgs.runs.atomic import write_atomically
from ppgs.runs.folder import RunFolder
from ppgs.runs.registry import find_run

_NAMES = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")


def find_weights(given: str, results: Path) -> Path:
    """Return the checkpoint or model zip of a file, a fold's folder (also stock nnU-Net's) or a run's name.

    Raises `BadInput`, `NoSuchRun` or `NoCheckpoint`.
    """
    path = Path(given)
    if not path.exists() and (path.suffix in (".pth", ".zip") or len(path.parts) > 1):
        raise BadInput("there is no such file", given, "give a run's name, a checkpoint or a model zip")
    if path.is_file():
        chosen = path.resolve()
        if chosen.suffix == ".zip":
            _members(chosen)
        return chosen
    folder = path if path.is_dir() and _first_of(path) is not None else find_run(given, results).path
    if (found := _first_of(folder)) is None:
        raise NoCheckpoint("the run has no checkpoint to start from", folder, "train it for an epoch at least")
    return found


def _first_of(folder: Path) -> Path | None:
    return next((path.resolve() for path in (folder / name for name in _NAMES) if path.is_file()), None)


def keep_weights(source: Path, run: RunFolder) -> None:
    """Copy the checkpoint into the run, which then does not need the source. Raises `BadInput`."""
    # Of the same cases, a fold has seen the same ones.
    with open_weights(source, run.path.name) as content:
        write_atomically(run.pretrained, lambda file: shutil.copyfileobj(content, file))


@contextmanager
def open_weights(source: Path, fold: str = "") -> Iterator[IO[bytes]]:
    """Open the checkpoint in a file of `find_weights`: of a zip that of `fold`, else the first. Raises `BadInput`."""
    try:
        if source.suffix != ".zip":
            with source.open("rb") as content:
                yield content
            return
        members = _members(source)
        member = next((m for m in members if PurePosixPath(m).parent.name == fold), members[0])
        with zipfile.ZipFile(source) as archive, archive.open(member) as packed:
            yield packed
    except (zipfile.BadZipFile, PermissionError, FileNotFoundError) as problem:
        raise BadInput(f"the file cannot be read: {problem}", source, "copy it again from where it is from") from None


def _members(archive: Path) -> list[str]:
    """Return the checkpoints in a model zip, the first fold's first; raises `BadInput` if there are none."""
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [name for name in opened.namelist() if PurePosixPath(name).name in _NAMES]
    except (OSError, zipfile.BadZipFile) as problem:
        raise BadInput(f"the file is no zip: {problem}", archive, "give a model zip or a checkpoint (.pth)") from None
    models = {str(PurePosixPath(name).parent.parent) for name in found}
    if not found:
        raise BadInput("the zip holds no checkpoint", archive, "give one that 'ppgs export' or nnU-Net wrote")
    if len(models) > 1:
        raise BadInput(
            f"the zip holds several models: {', '.join(sorted(models))}", archive, "unpack it and give one checkpoint"
        )
    return sorted(found, key=lambda name: (PurePosixPath(name).parent.name, _NAMES.index(PurePosixPath(name).name)))


def plans_in(archive: Path) -> dict[str, Any]:
    """Return the plans in a model zip; raises `BadInput`."""
    name = str(PurePosixPath(_members(archive)[0]).parent.parent / "plans.json")
    try:
        with zipfile.ZipFile(archive) as opened:
            plans = json.loads(opened.read(name))
    except (KeyError, ValueError, RecursionError, OSError, zipfile.BadZipFile):
        plans = None
    if not isinstance(plans, dict):
        raise BadInput("the zip has no plans.json that can be read", archive, "give a plans file instead")
    return plans
