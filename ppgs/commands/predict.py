"""`predict`: which folds of which model segment which images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ppgs.commands.models import find_folds
from ppgs.errors import BadInput, NoCheckpoint
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots

_CHECKPOINTS = ("final", "best", "latest")


@dataclass(frozen=True)
class PredictRequest:
    """The options of `predict`."""

    run: str
    source: Path
    target: Path
    folds: str | None = None
    checkpoint: str | None = None
    device: str = "auto"
    mirroring: bool = True
    step_size: float = 0.5
    overwrite: bool = True


def model_of(asked: PredictRequest, root: Path | None, environ: Mapping[str, str]) -> list[RunFolder]:
    """The folds to ensemble: one run's, or several of the same model. Raises `NoSuchRun`."""
    return find_folds(asked.run, asked.folds, Roots.choose(root, environ).results)


def checkpoint_of(run: RunFolder, wanted: str | None) -> Path:
    """The checkpoint to use: the final one, or what there is of an unfinished run. Raises `NoCheckpoint`."""
    if wanted is not None and wanted not in _CHECKPOINTS:
        raise BadInput(f"there is no checkpoint '{wanted}'", "--checkpoint", f"use one of {', '.join(_CHECKPOINTS)}")
    names = (wanted,) if wanted is not None else ("final", "latest")
    for name in names:
        path = run.path / f"checkpoint_{name}.pth"
        if path.is_file():
            return path
    raise NoCheckpoint(
        f"the run has no {names[0]} checkpoint", run.path, "train it at least for one epoch" if not wanted else ""
    )


def predict(
    asked: PredictRequest, runs: list[RunFolder], roots: Roots, report: Callable[[int, int], None]
) -> list[Path]:
    """Segment the images and return the files written; `report(done, total)` after every image.

    Raises `DatasetError` for images that cannot be segmented (the others are written), `RunError` for models that
    cannot be used, `DeviceError`.
    """
    checkpoints = [checkpoint_of(run, asked.checkpoint) for run in runs]
    if not asked.source.exists():
        raise BadInput("there is no such file or folder", asked.source)
    from ppgs.nnunet.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.prediction import Segmenter

    segmenter = Segmenter(
        runs[0].model, checkpoints, asked.device, mirroring=asked.mirroring, step_size=asked.step_size
    )
    return segmenter.run(asked.source, asked.target, overwrite=asked.overwrite, report=report)
