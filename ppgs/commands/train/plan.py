"""`train`: from a request to a run in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from ppgs import upstream
from ppgs.commands.folders import check_folders
from ppgs.commands.gpus import check_gpus
from ppgs.commands.models import find_folds
from ppgs.commands.prepare import check_plans_to_come
from ppgs.commands.pretrained import find_weights
from ppgs.commands.train.folder import claim_folder
from ppgs.doctor.folder import check_task
from ppgs.doctor.splits import splits_in_use
from ppgs.errors import BadInput, PlansError
from ppgs.estimate import cards, training_budget
from ppgs.nnunet.host.environment import check_numbers
from ppgs.plans import Configuration, Plans, load_plans_of
from ppgs.runs.cascade import (
    cases_of,
    check_first_stage,
    first_stage_runs,
    no_second_stage,
    read_splits,
    require_fold,
    training_command,
)
from ppgs.runs.folder import TRAINER, RunFolder
from ppgs.runs.manifest import Manifest
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import PlanFacts
from ppgs.schedule.requests import check_without_plans, make_schedule, read_schedule
from ppgs.tasks import Roots, Task, resolve_task
from ppgs.trackers import chosen_trackers
from ppgs.trainers import Trainers, suffix

_DEVICES = ("auto", "cuda", "cpu", "mps")


def create_run(
    asked: TrainingRequest, fold: int | str, roots: Roots, *, first_stage_is_there: bool = True
) -> RunFolder:
    """Make the run's folder with its manifest. Raises as `plan_run` and leaves nothing behind."""
    run, manifest = plan_run(asked, fold, roots, first_stage_is_there=first_stage_is_there)
    claim_folder(run, manifest, roots, overwrite=asked.overwrite)
    return run


def plan_run(
    asked: TrainingRequest, fold: int | str, roots: Roots, *, first_stage_is_there: bool = True
) -> tuple[RunFolder, Manifest]:
    """Return the run's folder and manifest without writing anything.

    Everything that can be checked without torch is checked here: an unknown task, a wrong schedule, a fold that does
    not exist, a schedule that does not suit plans that are there already, a cascade whose first stage is not finished
    (unless `first_stage_is_there` says that it will be). Raises the matching error.
    """
    if asked.name is not None and not all(c.isalnum() or c in "-." for c in asked.name):
        raise BadInput(f"'{asked.name}' is no part of a run's name", "--name", "use letters, digits, - and .")
    task = resolve_task(asked.task, roots)
    check_folders(roots, task)
    check_numbers()
    if asked.device not in _DEVICES:
        raise BadInput(f"there is no device '{asked.device}'", "--device", f"use one of {', '.join(_DEVICES)}")
    trainers = Trainers.of(os.environ)
    trainers.check(asked.trainer)
    epochs = trainers.epochs(asked.trainer)
    schedule_name, text = read_schedule(asked.schedule, demo=task.kind == "demo", epochs=epochs)
    if asked.gpu_memory not in (None, "auto"):
        cards.parse_memory(asked.gpu_memory)
    training_budget.check(asked, epochs=asked.epochs, energy=asked.energy)
    check_gpus(asked.gpus, asked.device)
    chosen_trackers(asked.log, os.environ)
    request = asked.model_copy(
        update={
            "kind": task.kind,
            "source": str(task.source) if task.source is not None else None,
            "schedule": text,
            "schedule_name": schedule_name,
            "gpus": asked.processes,
            "restarts": asked.restarts or 0,
            "until": None if asked.until is None else training_budget.parse_until(asked.until),
            "previous_stage": _previous_stage(asked, task, roots),
            "pretrained": _pretrained(asked, roots),
        }
    )
    check_without_plans(request, dataset=task.dataset, plans=asked.plans, configuration=asked.configuration)
    seed = f"seed{asked.seed}" if asked.seed else None
    label = "_".join(filter(None, (schedule_name, suffix(asked.trainer), seed, asked.name)))
    run = RunFolder.place(roots.results, task.dataset, label, asked.plans, asked.configuration, fold)
    if request.pretrained is not None and Path(request.pretrained).is_relative_to(run.path.resolve()):
        raise BadInput("the weights are those of the run that would be replaced", "--pretrained", "use --name")
    _check_early(request, task, run if first_stage_is_there else None, fold, roots)
    manifest = Manifest(
        name=_name(task, label, asked, fold),
        task=asked.task,
        dataset=task.dataset,
        plans=asked.plans,
        configuration=asked.configuration,
        fold=fold,  # type: ignore[arg-type]
        trainer=f"{TRAINER}_{label}",
        schedule=schedule_name,
        seed=asked.seed,
        request=request,
    )
    return run, manifest


def _name(task: Task, label: str, asked: TrainingRequest, fold: int | str) -> str:
    """Return a run's short name, which leaves out nnU-Net's defaults."""
    parts = [task.short_name, label.replace("_", "-")]
    if asked.configuration != "3d_fullres":
        parts.append(asked.configuration)
    if asked.plans != "nnUNetPlans":
        parts.append(asked.plans.removeprefix("nnUNet").removesuffix("Plans"))
    return "-".join([*parts, f"fold{fold}" if fold != "all" else "all"])


def _pretrained(asked: TrainingRequest, roots: Roots) -> str | None:
    """Return the file of `--pretrained`; raises `BadInput` or `NoSuchRun` if there is none."""
    if asked.pretrained is not None:
        return str(find_weights(asked.pretrained, roots.results))
    if asked.freeze:
        raise BadInput("parameters that start at random cannot stay as they are", "--freeze", "give --pretrained too")
    return None


def _previous_stage(asked: TrainingRequest, task: Task, roots: Roots) -> str | None:
    """Return the model folder's name of `--previous-stage RUN`; raises `BadInput` if its data or plans differ."""
    if asked.previous_stage is None:
        return None
    model = find_folds(asked.previous_stage, None, roots.results)[0].model
    if model.parent.resolve() != (roots.results / task.dataset).resolve():
        raise BadInput(f"the run is not of {task.dataset} under {roots.results}", "--previous-stage")
    if model.name.split("__")[-2] != asked.plans:
        raise BadInput(f"the run was trained with the plans {model.name.split('__')[-2]}", "--previous-stage")
    return model.name


def _check_early(request: TrainingRequest, task: Task, run: RunFolder | None, fold: int | str, roots: Roots) -> None:
    check_task(task, roots, fold)
    prepared = roots.preprocessed / task.dataset
    splits = prepared / upstream.SPLITS
    own = splits_in_use(roots.raw / task.dataset, prepared)
    folds = upstream.FOLDS if own is None else len(read_splits(own))
    require_fold(fold, folds, task.dataset)
    check_plans_to_come(task, roots, request.plans, request.configuration)
    if (prepared / f"{request.plans}.json").is_file():
        plans = load_plans_of(prepared, request.plans)
        configuration = plans.configuration(request.configuration)
        make_schedule(request, PlanFacts.of(plans, configuration))
        if run is not None:
            _check_cascade(request, plans, configuration, run, splits, fold)


def _check_cascade(
    request: TrainingRequest, plans: Plans, configuration: Configuration, run: RunFolder, splits: Path, fold: int | str
) -> None:
    stage = configuration.previous_stage
    if stage is None:
        if request.previous_stage is not None:
            raise no_second_stage(configuration.name)
        return
    if plans.configuration(stage).previous_stage is not None:
        raise PlansError(
            f"{configuration.name} is the third stage of a cascade", "--configuration", "cascades have two stages"
        )
    model = run.model.parent / (request.previous_stage or run.in_configuration(stage).model.name)
    check_first_stage(model, stage, configuration.name)
    if splits.is_file():
        known = read_splits(splits)
        first_stage_runs(model, known, cases_of(known, fold), training_command(run, request, stage, request.name))
