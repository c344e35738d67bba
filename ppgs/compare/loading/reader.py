"""Reader of runs: summaries, costs, curves and manifests, with notes on what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ppgs.compare.loading.curves import from_epochs, read_progress, read_training_logs
from ppgs.compare.loading.sources import Place
from ppgs.compare.loading.summaries import DamagedSummary, read_summary
from ppgs.compare.model import CaseScores, Curve, Fold, FoldCost, Provenance, Run, StageText
from ppgs.errors import BadInput, PpgsError, Problem, RunError
from ppgs.formatting import duration
from ppgs.plans import load_dataset
from ppgs.runs.emissions import EMISSIONS, read_emissions
from ppgs.runs.events import read_whole
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.older import read_data
from ppgs.runs.registry import command
from ppgs.runs.state import RunState
from ppgs.schedule import load

UNKNOWN_TASK = "predictions"
ScorePredictions = Callable[[Place], tuple[CaseScores, ...]]


@dataclass
class Loaded:
    """Readable runs, notes on what was left out, and notes on the rest."""

    runs: list[Run] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_runs(places: list[Place], score: ScorePredictions | None) -> Loaded:
    """Read all places. Folds that cannot be used are left out and named in `left_out`; no error stops the others.

    `score` computes the cases of a folder of predictions that has no summary; None where no references were given.
    """
    loaded = Loaded()
    tasks = {p.task for p in places if p.task}
    # A folder of predictions does not name its task: it belongs to the only one given.
    fallback = next(iter(tasks)) if len(tasks) == 1 else UNKNOWN_TASK
    for place in places:
        folds = _predictions(place, score, loaded) if place.is_predictions else _folds(place, loaded)
        if folds:
            loaded.runs.append(_run(place, place.task or fallback, folds, loaded))
    _note_missing(places, loaded)
    return loaded


def _predictions(place: Place, score: ScorePredictions | None, loaded: Loaded) -> list[Fold]:
    try:
        if score is not None:
            cases = score(place)
        elif (place.path / "summary.json").is_file():
            cases = read_summary(place.path / "summary.json", "give --references DIR, or remove the summary")
        else:
            raise BadInput(
                "a folder of predictions needs references to be compared with", place.path, "give --references DIR"
            )
    except PpgsError as error:
        loaded.left_out += error.problems
        return []
    return [Fold("", place.path, cases, FoldCost())]


def _folds(place: Place, loaded: Loaded) -> list[Fold]:
    folds, rest = [], "or give --keep-going to compare the rest"
    for name, path in place.folds:
        summary = path / "validation" / "summary.json"
        try:
            if not summary.exists():
                raise DamagedSummary(
                    "the fold is not validated: there is no summary.json",
                    summary,
                    f"finish the training, validate it ({_validation(path)}), {rest}",
                )
            cases = read_summary(summary, f"validate that fold again ({_validation(path)}), {rest}")
            folds.append(_fold(name, path, cases, loaded))
        except PpgsError as error:
            loaded.left_out += error.problems
    return folds


def _validation(fold: Path) -> str:
    """Return the command that validates a fold: of ppgs for its own runs, else of nnU-Net."""
    try:
        return command("validate", RunFolder(fold), read_manifest(RunFolder(fold)).name)
    except RunError:
        return "nnUNetv2_train ... --val"


def _note_missing(places: list[Place], loaded: Loaded) -> None:
    """Note the folds that models of several folds lack; many of one kind in one line."""
    lacking: dict[str, list[Place]] = {}
    for place in places:
        missing = _missing_folds([name for name, _ in place.folds])
        if len(place.folds) > 1 and missing:
            lacking.setdefault(missing, []).append(place)
    for missing, lack in lacking.items():
        names = [f"{p.task}: {p.name}" if p.task else p.name for p in lack]
        rest = f" and {len(names) - 2} more" if len(names) > 3 else ""
        loaded.notes.append(f"folds {missing} are missing of {'; '.join(names[:2] if rest else names)}{rest}")


# Share of the training's time that a measurement of its energy covers, at least: a part would look cheap.
_WHOLE = 0.95


def _missing_folds(names: list[str]) -> str:
    numbers = {int(n) for n in names if n.isdigit()}
    return ", ".join(str(n) for n in range(max(5, *numbers, 0) if numbers else 0) if n not in numbers)


def _fold(name: str, path: Path, cases: tuple[CaseScores, ...], loaded: Loaded) -> Fold:
    run = RunFolder(path)
    state = RunState()
    records, damaged = read_whole(run.events)
    if damaged:
        loaded.notes.append(f"{run.events}: {damaged} damaged lines are left out; cost may be missing")
    events = None
    try:
        events = from_epochs(state.apply_all(records).finished_epochs)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        loaded.notes.append(f"{run.events}: the events could not be understood ({problem}); cost may be missing")
        state = RunState()
    progress = read_progress(path / "progress.csv")
    log = None if events or progress else read_training_logs(path)
    return Fold(
        name, path, cases, _cost(path, records, state, events, progress, log, loaded), events or progress or log
    )


def _cost(
    path: Path,
    records: list[dict[str, Any]],
    state: RunState,
    events: Curve | None,
    progress: Curve | None,
    log: Curve | None,
    loaded: Loaded,
) -> FoldCost:
    try:
        emissions = read_emissions(path / EMISSIONS)
    except BadInput as error:
        loaded.notes += [f"{p.where}: {p.what}" for p in error.problems]
        emissions = None
    energy = events.kwh[-1] if events and events.kwh else None
    if emissions and events and emissions.seconds < _WHOLE * events.seconds[-1]:
        instead = "energy and CO2 are left out" if energy is None else "the energy is that of the event log"
        loaded.notes.append(
            f"{path / EMISSIONS}: only {duration(emissions.seconds)} of {duration(events.seconds[-1])} were measured; "
            f"{instead}"
        )
        emissions = None
    curves = {"events": events, "progress": progress, "log": log}
    seconds = {source: curve.seconds[-1] for source, curve in curves.items() if curve and curve.seconds[-1] > 0}
    if emissions:
        seconds["emissions"] = emissions.seconds
    finished = list(state.finished_epochs.values())
    peaks = [r["peak_memory_bytes"] for r in finished if isinstance(r.get("peak_memory_bytes"), (int, float))]
    started: dict[str, Any] = next((r for r in reversed(records) if r["type"] == "run_started"), {})
    return FoldCost(
        seconds=seconds,
        energy_kwh=emissions.energy_kwh if emissions else energy,
        gpu_kwh=emissions.gpu_kwh if emissions else None,
        cpu_kwh=emissions.cpu_kwh if emissions else None,
        ram_kwh=emissions.ram_kwh if emissions else None,
        co2_kg=emissions.co2_kg if emissions else None,
        country=emissions.country if emissions else None,
        gpus=_gpus(started, emissions.gpus if emissions else None),
        gpu_model=emissions.gpu_model if emissions else None,
        peak_memory_bytes=int(max(peaks)) if peaks else None,
        flops=_flops(started, finished),
    )


def _gpus(started: dict[str, Any], tracked: int | None) -> int | None:
    value = started.get("gpus")
    return value if isinstance(value, int) else tracked


def _flops(started: dict[str, Any], finished: list[dict[str, Any]]) -> float | None:
    """Return the FLOPs of all training iterations: the stages' `flops_per_iteration` times iterations done."""
    stages, iterations = started.get("stages"), started.get("iterations_per_epoch")
    if not finished or not isinstance(stages, list) or not isinstance(iterations, int):
        return None
    try:
        return float(sum(stages[record["stage"]]["flops_per_iteration"] * iterations for record in finished))
    except (KeyError, IndexError, TypeError):
        return None


def _run(place: Place, task: str, folds: list[Fold], loaded: Loaded) -> Run:
    keys = list(dict.fromkeys(key for fold in folds for scores in fold.cases for key in scores.dice))
    for fold in folds:
        if set(fold.cases[0].dice) != set(keys):
            loaded.notes.append(f"{place.name}: fold {fold.name} has other classes than the other folds")
    data = [known for fold in folds if (known := read_data(RunFolder(fold.path)))]
    if any(a[case] != b[case] for a, b in pairwise(data) for case in a.keys() & b.keys()):
        loaded.notes.append(f"{place.name}: its folds were not trained on the same data; cases were changed in between")
    names = class_names(place.path)
    return Run(
        name=place.name,
        training=place.training,
        task=task,
        folds=tuple(folds),
        classes={key: names.get(_plain_key(key), key) for key in keys},
        provenance=replace(
            _provenance(place, folds, loaded), data={case: digest for known in data for case, digest in known.items()}
        ),
    )


def _plain_key(key: str) -> str:
    return "".join(c for c in key if c.isdigit() or c == ",").strip(",")


def find_upwards(path: Path, name: str, levels: int = 3) -> Path | None:
    """Find a file of that name in the folder or its nearest parents."""
    return next((p / name for p in (path, *path.parents[:levels]) if (p / name).is_file()), None)


def class_names(path: Path) -> dict[str, str]:
    """Return class names by key (`1`, or `1,2,3` for a region) from the nearest `dataset.json`; empty without one."""
    file = find_upwards(path, "dataset.json")
    if file is None:
        return {}
    try:
        foreground = load_dataset(file).foreground
    except BadInput:
        return {}
    return {
        ",".join(map(str, value)) if isinstance(value, tuple) else str(value): name
        for name, value in foreground.items()
    }


def _provenance(place: Place, folds: list[Fold], loaded: Loaded) -> Provenance:
    parts = place.path.name.split("__") if "__" in place.path.name else place.path.parent.name.split("__")
    trainer, plans, configuration = (parts + [None] * 3)[:3] if len(parts) == 3 else (None, None, None)
    hardware = next((f.cost.gpu_model for f in folds if f.cost.gpu_model), None)
    run = RunFolder(folds[0].path)
    if not run.manifest.exists():
        versions = _tracker_versions(folds[0].path)
        return Provenance(
            place.path, trainer, plans, configuration, hardware=hardware or _debug(folds[0].path), versions=versions
        )
    try:
        manifest = read_manifest(run)
    except PpgsError as error:
        loaded.notes += [f"{p.where}: {p.what}" for p in error.problems]
        return Provenance(place.path, trainer, plans, configuration, hardware=hardware)
    stages: tuple[StageText, ...] = ()
    try:
        schedule = load(run.schedule)
        stages = tuple(StageText(s.patch_size, s.batch_size, s.epochs) for s in getattr(schedule, "stages", ()) or ())
    except (PpgsError, OSError):
        pass
    return Provenance(
        path=place.path,
        trainer=manifest.trainer,
        plans=manifest.plans,
        configuration=manifest.configuration,
        schedule=manifest.schedule,
        schedule_hash=manifest.schedule_hash,
        seed=manifest.seed,
        device=manifest.device,
        host=manifest.host,
        hardware=hardware,
        versions=manifest.versions,
        stages=stages,
    )


def _tracker_versions(fold: Path) -> dict[str, str]:
    """Return the versions recorded by CodeCarbon."""
    import csv

    try:
        with (fold / EMISSIONS).open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file), {})
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    columns = {"python_version": "python", "codecarbon_version": "codecarbon"}
    return {name: row[column] for column, name in columns.items() if row.get(column)}


def _debug(fold: Path) -> str | None:
    """Return the GPU recorded in nnU-Net's `debug.json` of the fold."""
    try:
        raw = json.loads((fold / "debug.json").read_bytes())
    except (OSError, ValueError):
        return None
    name = raw.get("gpu_name") if isinstance(raw, dict) else None
    return str(name) if name else None
