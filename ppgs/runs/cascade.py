"""First-stage runs of a cascade that segment the cases its second stage trains on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ppgs import shipped
from ppgs.errors import BadInput, DamagedRun, NoSuchRun, RunError
from ppgs.plans import check_name
from ppgs.runs.folder import RunFolder, configuration_of
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import root_option
from ppgs.runs.request import TrainingRequest
from ppgs.trainers import DEFAULT

Split = dict[str, list[str]]


def read_splits(path: Path) -> list[Split]:
    """Read nnU-Net's `splits_final.json`: training (`train`) and validation (`val`) cases of every fold."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        known = [{part: [str(case) for case in fold[part]] for part in ("train", "val")} for fold in splits]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as problem:
        raise DamagedRun(f"the splits cannot be read: {problem}", path, "restore or remove the file") from None
    for case in cases_of(known, "all"):
        check_name(case, path)
    return known


def require_fold(fold: int | str, folds: int, dataset: str) -> None:
    """Raise `BadInput` if the splits have no such fold."""
    if fold != "all" and not (str(fold).isdecimal() and int(fold) < folds):
        raise BadInput(f"there is no fold {fold}", "--fold", f"{dataset} has folds 0 to {folds - 1}")


def cases_of(splits: Sequence[Split], fold: int | str) -> list[str]:
    """Return all cases that a fold trains or validates on."""
    chosen = splits if fold == "all" else [splits[int(fold)]]
    return sorted({case for split in chosen for part in split.values() for case in part})


def first_stage_runs(model: Path, splits: Sequence[Split], cases: Iterable[str], command: str) -> dict[str, RunFolder]:
    """Return the run that segments each case: the fold that did not train on it, else fold `all`.

    Raises `NoSuchRun` naming the folds that are not finished; `command` trains them, as the remedy.
    """
    validated = {case: fold for fold, split in enumerate(splits) for case in split["val"]}
    of_all = RunFolder(model / "fold_all")
    chosen: dict[str, RunFolder] = {}
    lacking: set[str] = set()
    done: dict[RunFolder, bool] = {}
    for case in cases:
        fold = validated.get(case)
        candidates = [*([RunFolder(model / f"fold_{fold}")] if fold is not None else []), of_all]
        for run in candidates:
            if run not in done:
                done[run] = _is_finished(run)
        usable = next((run for run in candidates if done[run]), None)
        if usable is None:
            lacking.add("all" if fold is None else str(fold))
        else:
            chosen[case] = usable
    if lacking:
        # Which segments every case.
        folds = "all" if "all" in lacking else ",".join(sorted(lacking))
        raise NoSuchRun(
            f"the cascade's first stage is not finished: fold {folds} of {model.name}",
            model,
            f"{command} --fold {folds}",
        )
    return chosen


def segmented_by_folds(model: Path, splits: Sequence[Split]) -> set[str]:
    """Return the cases that a finished fold has segmented which did not train on them."""
    finished = [fold for fold in range(len(splits)) if _is_finished(RunFolder(model / f"fold_{fold}"))]
    return {case for fold in finished for case in splits[fold]["val"]}


def first_stage_of(run: RunFolder, stage: str) -> RunFolder:
    """Return the same fold of the first stage that a second stage was trained with."""
    chosen = read_manifest(run).request.previous_stage if run.manifest.is_file() else None
    alike = run.in_configuration(stage)
    return alike if chosen is None else RunFolder(run.model.with_name(chosen) / alike.path.name)


def first_stage_folds(runs: Sequence[RunFolder], stage: str, usable: Callable[[RunFolder], bool]) -> list[RunFolder]:
    """Return the folds of the first stage that segment for these folds of a second stage, if they are usable.

    They are the same folds, else fold `all`, else all others: the stages may have been trained on different folds.
    """
    same = [first_stage_of(run, stage) for run in runs]
    numbers = sorted(int(fold) for path in same[0].model.glob("fold_*") if (fold := RunFolder(path).fold).isdecimal())
    whole, numbered = ([RunFolder(same[0].model / f"fold_{fold}") for fold in folds] for folds in (["all"], numbers))
    return next((found for folds in (same, whole, numbered) if (found := list(filter(usable, folds)))), [])


def no_second_stage(configuration: str) -> BadInput:
    """Return the error for `--previous-stage` with a configuration that has none."""
    return BadInput(f"{configuration} is no cascade's second stage", "--previous-stage", "leave the option out")


def check_first_stage(model: Path, stage: str, configuration: str) -> None:
    """Raise `BadInput` if the model of `--previous-stage` is not of the stage that the configuration follows."""
    if (trained := configuration_of(model)) != stage:
        raise BadInput(f"that run is of {trained}; {configuration} follows {stage}", "--previous-stage")


def training_command(run: RunFolder, request: TrainingRequest, configuration: str, name: str | None) -> str:
    """Return the command that trains a configuration the same way as a run, under this name."""
    defaults = {"trainer": DEFAULT, "plans": "nnUNetPlans", "seed": 0, "name": None}
    values = {"trainer": request.trainer, "plans": request.plans, "seed": request.seed, "name": name}
    others = [f" --{key} {value}" for key, value in values.items() if value != defaults[key]]
    schedule = request.schedule_name if request.schedule_name in shipped.schedules() else "FILE"
    command = f"ppgs train {shlex.quote(request.task)} --configuration {configuration} --schedule {schedule}"
    return command + "".join(others) + root_option(run)


def _is_finished(run: RunFolder) -> bool:
    # Not as soon as there is a checkpoint: the validation after it writes the first stage's segmentations too.
    try:
        return run.checkpoint_final.is_file() and read_manifest(run).status == "finished"
    except RunError:
        return False
