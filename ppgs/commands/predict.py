"""`predict`: which folds of which model segment which images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppgs.commands.models import find_folds
from ppgs.errors import BadInput, NoCheckpoint, NoSuchRun
from ppgs.plans import load_plans
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.nnunet.prediction import Model

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
    previous_stage: str | None = None
    probabilities: bool = False


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
    previous = _previous_stage(asked, runs, roots)
    if not asked.source.exists():
        raise BadInput("there is no such file or folder", asked.source, "give an image, or a folder of images, with -i")
    from ppgs.nnunet.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.prediction import Segmenter, load_model

    def load(chosen: list[RunFolder], files: list[Path]) -> Model:
        return load_model(chosen[0].model, files, asked.device, mirroring=asked.mirroring, step_size=asked.step_size)

    first = previous if previous is None or isinstance(previous, Path) else Segmenter(load(*previous))
    segmenter = Segmenter(load(runs, checkpoints), previous=first, probabilities=asked.probabilities)
    return segmenter.run(asked.source, asked.target, overwrite=asked.overwrite, report=report)


def _previous_stage(
    asked: PredictRequest, runs: list[RunFolder], roots: Roots
) -> tuple[list[RunFolder], list[Path]] | Path | None:
    """A cascade's first stage: its runs and their checkpoints, or a folder of its segmentations; None for others.

    Without `--previous-stage` it is what was trained alike, of the same folds. Raises `NoSuchRun`, `NoCheckpoint`,
    `BadInput`.
    """
    model, given = runs[0].model, asked.previous_stage
    configuration = load_plans(model / "plans.json").configuration(model.name.rsplit("__", 1)[-1])
    stage = configuration.previous_stage
    if stage is None:
        if given is not None:
            raise BadInput(
                f"{configuration.name} is no cascade's second stage", "--previous-stage", "leave the option out"
            )
        return None
    if given is None:
        first = [run for run in (run.in_configuration(stage) for run in runs) if run.own.is_dir()]
        if not first:
            raise NoSuchRun(
                f"{configuration.name} needs the segmentations of {stage}, which has not been trained alike",
                runs[0].in_configuration(stage).model,
                "give --previous-stage RUN, or a folder of segmentations",
            )
    elif (folder := Path(given)).is_dir() and not any(
        p.is_dir() for p in (folder / "ppgs", *folder.glob("fold_*/ppgs"))
    ):
        return Path(given)
    else:
        first = find_folds(given, None, roots.results)
        name = first[0].model.name.rsplit("__", 1)[-1]
        if name != stage:
            raise BadInput(f"that run is of {name}; {configuration.name} follows {stage}", "--previous-stage")
    return first, [checkpoint_of(run, None) for run in first]
