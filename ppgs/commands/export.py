"""`export`: finished runs as nnU-Net's own model zip, for machines that have no ppgs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ppgs.commands.models import find_folds, finished, sort_folds
from ppgs.errors import BadInput, DiskFull, Problems, RunError
from ppgs.outputs import Kept, check_outputs, remember
from ppgs.plans import load_plans, read_json
from ppgs.runs.atomic import write_atomically
from ppgs.runs.cascade import first_stage_folds, first_stage_of
from ppgs.runs.folder import RunFolder, configuration_of
from ppgs.runs.manifest import read_manifest
from ppgs.tasks import Roots

CARD = "model_card.md"
# Files of a model's folder and of its cross-validation that nnU-Net's own export (`export_pretrained_model`) takes; a
# fold's debug.json, which it takes too, names the machine and its folders.
_MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
_CROSS_VALIDATION_FILES = ("summary.json", "postprocessing.pkl", "postprocessing.json")


@dataclass(frozen=True)
class Model:
    """One configuration to export: its folds, and its place in the zip."""

    runs: tuple[RunFolder, ...]
    dataset: str
    plans: str
    configuration: str
    # nnU-Net's class that the curriculum was put on: stock nnU-Net builds the network with it.
    trainer: str

    @property
    def place(self) -> str:
        return f"{self.dataset}/{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def source(self) -> Path:
        return self.runs[0].model

    @property
    def folds(self) -> tuple[str, ...]:
        return tuple(run.fold for run in self.runs)


def choose_models(
    given: list[str], folds: str | None, root: Path | None, environ: Mapping[str, str]
) -> tuple[list[Model], list[str]]:
    """Return the models to export (including a cascade's first stage), and notes for the user.

    Raises `NoSuchRun`, `NoCheckpoint` for runs that are not finished, `BadInput` for two models of one place.
    """
    results = Roots.choose(root, environ).results
    by_model: dict[Path, list[RunFolder]] = {}
    for one in given:
        for run in find_folds(one, folds, results):
            known = by_model.setdefault(run.model.resolve(), [])
            if run.path.resolve() not in [other.path.resolve() for other in known]:
                known.append(run)
    notes: list[str] = []
    for model, runs in list(by_model.items()):
        configuration = configuration_of(model)
        planned = load_plans(model / "plans.json").configuration(configuration)
        if planned.architecture.startswith("ppgs."):
            notes.append(f"{planned.architecture} is no network of nnU-Net: the zip needs ppgs where it is used")
        stage = planned.previous_stage
        if stage is None or first_stage_of(runs[0], stage).model.resolve() in by_model:
            continue
        before = first_stage_folds(runs, stage, lambda run: run.checkpoint_final.is_file())
        if before:
            by_model[before[0].model.resolve()] = before
            notes.append(f"{configuration} is a cascade's second stage: {stage} goes with it")
        else:
            notes.append(f"{configuration} is a cascade's second stage: without {stage} it cannot be used alone")
    models = [_model(sort_folds(runs)) for runs in by_model.values()]
    for number, one_model in enumerate(models):
        for other in models[:number]:
            if other.place == one_model.place:
                raise BadInput(
                    f"{other.source.name} and {one_model.source.name} would have one name in the zip",
                    one_model.place,
                    "export them into two files",
                )
    return models, notes


def _model(runs: list[RunFolder]) -> Model:
    problems = Problems()
    for run in runs:
        try:
            finished(run)
        except RunError as error:
            problems.found += error.problems
    problems.raise_as(RunError, f"{len(problems.found)} of {len(runs)} folds are not finished")
    manifest = read_manifest(runs[0])
    return Model(tuple(runs), manifest.dataset, manifest.plans, manifest.configuration, manifest.request.trainer)


def export(models: list[Model], target: Path, *, overwrite: bool) -> None:
    """Write the zip atomically. Raises `BadInput` for a target that cannot be written."""
    if target.is_file() and not overwrite:
        raise BadInput("the file exists", target, "--overwrite replaces it if it is an exported model")
    if not target.parent.is_dir():
        raise BadInput("there is no such folder", target.parent)
    keep = [Kept(model.source / name, f"the model's {name}") for model in models for name in _MODEL_FILES]
    keep += [Kept(run.path, f"the run {run.path}") for model in models for run in model.runs]
    check_outputs([target], keep, overwrite=target.is_file() and _is_export(target))
    try:
        write_atomically(target, lambda file: _write(models, file))
        remember(target)
    except OSError as problem:
        if (full := DiskFull.of(problem, target)) is not None:
            raise full.with_remedy("make room, or choose another place") from None
        raise BadInput(f"the file cannot be written: {problem.strerror}", target) from None


def _is_export(file: Path) -> bool:
    """Return whether the file is a model zip, of ppgs or of nnU-Net itself."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return False
    models = {name.parent for name in names if name.name == "plans.json"}
    return any(model / "dataset.json" in names and len(model.parts) == 2 for model in models)


def _write(models: list[Model], file: IO[bytes]) -> None:
    # Reads results with SciPy: not before it is needed.
    from ppgs.commands.model_card import write_card

    # The fastest level: weights hardly get smaller, tables and pictures do.
    # Zip has no dates before 1980, which files have that were copied or unpacked without theirs.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for model in models:
            for run in model.runs:
                _add_fold(archive, run, f"{model.place}/{run.path.name}")
            folder = f"crossval_results_folds_{'_'.join(model.folds)}"
            for name in _CROSS_VALIDATION_FILES:
                _add(archive, model.source / folder / name, f"{model.place}/{folder}/{name}")
            for name in _MODEL_FILES:
                _add(archive, model.source / name, f"{model.place}/{name}")
            archive.writestr(f"{model.place}/{CARD}", write_card(model.runs, _first_stage(model, models)))


def _first_stage(model: Model, models: list[Model]) -> tuple[RunFolder, ...]:
    """Return the exported folds of a cascade's first stage; none if it is not exported, or the model has none."""
    stage = load_plans(model.source / "plans.json").configuration(model.configuration).previous_stage
    if stage is None:
        return ()
    source = first_stage_of(model.runs[0], stage).model.resolve()
    return next((other.runs for other in models if other.source.resolve() == source), ())


def _add_fold(archive: zipfile.ZipFile, run: RunFolder, place: str) -> None:
    from ppgs.nnunet.checkpoints.files import write_stock

    with archive.open(f"{place}/{run.checkpoint_final.name}", "w", force_zip64=True) as file:
        write_stock(run.checkpoint_final, file)
    _add(archive, run.path / "progress.png", f"{place}/progress.png")
    _add(archive, run.summary, f"{place}/validation/{run.summary.name}")


def _add(archive: zipfile.ZipFile, source: Path, place: str) -> None:
    if not source.is_file():
        return
    if source.name == "summary.json":
        archive.writestr(place, json.dumps(_without_folders(read_json(source)), indent=4))
    else:
        archive.write(source, place)


def _without_folders(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with file names only: folders would reveal the machine it was made on."""
    cases = [
        case | {key: Path(case[key]).name for key in ("prediction_file", "reference_file") if key in case}
        for case in summary.get("metric_per_case", [])
    ]
    return summary | {"metric_per_case": cases}


def describe(model: Model) -> str:
    """Return text such as `Dataset004_Hippocampus 3d_fullres, folds 0 1`."""
    folds = "fold" if len(model.folds) == 1 else "folds"
    return f"{model.dataset} {model.configuration}, {folds} {' '.join(model.folds)}"
