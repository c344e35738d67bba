"""`train`: from a request to a run in its folder and the process that trains it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ppgs import upstream
from ppgs.commands.data import changes_since
from ppgs.commands.folders import check_folders
from ppgs.commands.gpus import check_gpus
from ppgs.commands.models import find_folds
from ppgs.commands.pretrained import find_weights, keep_weights
from ppgs.commands.trackers import TrackersBeside
from ppgs.doctor.folder import check_task
from ppgs.doctor.splits import splits_in_use
from ppgs.errors import (
    BadInput,
    ExitCode,
    NoSuchRun,
    PathUnusable,
    PlansError,
    PpgsError,
    RunError,
    RunExists,
    RunLocked,
    from_record,
)
from ppgs.estimate import training_budget
from ppgs.formatting import exit_text
from ppgs.nnunet.host.environment import launched
from ppgs.plans import Configuration, Plans, load_plans
from ppgs.runs.atomic import is_leftover
from ppgs.runs.cascade import cases_of, first_stage_runs, read_splits, training_command
from ppgs.runs.disk_space import failing_storage
from ppgs.runs.events import Record, Tail
from ppgs.runs.folder import TRAINER, Checkpoint, RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest, moved_away, read_manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import PlanFacts, Schedule, parse
from ppgs.schedule.requests import make_schedule, read_mirroring, read_schedule
from ppgs.tasks import DEMO, Roots, Task, resolve_task
from ppgs.trackers import chosen_trackers
from ppgs.trainers import Trainers, suffix

_DEVICES = ("auto", "cuda", "cpu", "mps")


def create_run(
    asked: TrainingRequest, fold: int | str, roots: Roots, *, first_stage_is_there: bool = True
) -> RunFolder:
    """Make the run's folder with its manifest. Raises as `plan_run` and leaves nothing behind."""
    run, manifest = plan_run(asked, fold, roots, first_stage_is_there=first_stage_is_there)
    _claim_folder(run, manifest, roots, overwrite=asked.overwrite)
    return run


def plan_run(
    asked: TrainingRequest, fold: int | str, roots: Roots, *, first_stage_is_there: bool = True
) -> tuple[RunFolder, Manifest]:
    """Return the run's folder and manifest without writing anything.

    Everything that can be checked without torch is checked here: an unknown task, a wrong schedule, a fold that does
    not exist, a schedule that does not suit plans that are there already, a cascade whose first stage is not finished
    (unless `first_stage_is_there` says that it will be). Raises the matching error.
    """
    task = resolve_task(asked.task, roots)
    check_folders(roots, task)
    if asked.device not in _DEVICES:
        raise BadInput(f"there is no device '{asked.device}'", "--device", f"use one of {', '.join(_DEVICES)}")
    schedule_name, text = read_schedule(asked.schedule, demo=task.kind == "demo")
    read_mirroring(asked.mirroring)
    training_budget.check(asked, epochs=asked.epochs, energy=asked.energy)
    trainers = Trainers.of(os.environ)
    trainers.check(asked.trainer)
    check_gpus(asked.gpus, asked.device)
    chosen_trackers(asked.log, os.environ)
    request = asked.model_copy(
        update={
            "kind": task.kind,
            "source": str(task.source) if task.source is not None else None,
            "schedule": text,
            "schedule_name": schedule_name,
            "epochs": _epochs(asked, trainers.epochs(asked.trainer), text),
            "gpus": asked.processes,
            "restarts": asked.restarts or 0,
            "until": None if asked.until is None else training_budget.parse_until(asked.until),
            "previous_stage": _previous_stage(asked, task, roots),
            "pretrained": _pretrained(asked, roots),
        }
    )
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


def _epochs(asked: TrainingRequest, of_trainer: int | None, schedule: str) -> int | None:
    """Return the number of epochs: the option, else the trainer class's if the recipe gives none."""
    if asked.epochs is not None or of_trainer is None or asked.budget or asked.until:
        return asked.epochs
    content = parse(schedule)
    says = isinstance(content, Schedule) or ("epochs" in content.model_fields_set and asked.task != DEMO)
    return None if says else of_trainer


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
    if fold != "all" and not int(fold) < folds:
        raise BadInput(f"there is no fold {fold}", "--fold", f"{task.dataset} has folds 0 to {folds - 1}")
    plans_file = prepared / f"{request.plans}.json"
    if plans_file.is_file():
        plans = load_plans(plans_file)
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
            raise BadInput(
                f"{configuration.name} is no cascade's second stage", "--previous-stage", "leave the option out"
            )
        return
    if plans.configuration(stage).previous_stage is not None:
        raise PlansError(
            f"{configuration.name} is the third stage of a cascade", "--configuration", "cascades have two stages"
        )
    model = run.model.parent / (request.previous_stage or run.in_configuration(stage).model.name)
    if (trained := model.name.rsplit("__", 1)[-1]) != stage:
        raise BadInput(f"that run is of {trained}; {configuration.name} follows {stage}", "--previous-stage")
    if splits.is_file():
        known = read_splits(splits)
        first_stage_runs(model, known, cases_of(known, fold), training_command(request, stage))


def _what_next(run: RunFolder, name: str) -> str:
    try:
        finished = read_manifest(run).status == "finished"
    except PpgsError:
        finished = False
    return f"it is finished: 'ppgs predict {name}' uses it" if finished else f"'ppgs resume {name}' continues it"


def _claim_folder(run: RunFolder, manifest: Manifest, roots: Roots, *, overwrite: bool) -> None:
    if run.path.exists():
        if (owner := is_held(run.lock)) is not None:
            raise RunLocked(
                f"the run is held by process {owner.pid} on {owner.host}", run.path, f"ppgs monitor {manifest.name}"
            )
        if not overwrite:
            changes = changes_since(run, roots)
            raise RunExists(
                f"there is a run '{manifest.name}' already"
                + (f", trained on data that have changed since ({changes.text})" if changes else ""),
                run.path,
                f"{_what_next(run, manifest.name)}; --name starts another beside it, --overwrite replaces it",
            )
        _check_only_a_run(run)
        shutil.rmtree(run.path)
        # Made by what is replaced; made again when a second stage asks for them.
        shutil.rmtree(run.model / upstream.NEXT_STAGE, ignore_errors=True)
    try:
        run.own.mkdir(parents=True)
        if manifest.request.pretrained is not None:
            keep_weights(Path(manifest.request.pretrained), run)
        write_manifest(run, manifest)
    except PpgsError:
        discard(run)
        raise
    except OSError as problem:
        discard(run)
        if (unusable := PathUnusable.as_folder(run.path)) is not None:
            raise unusable from None
        raise BadInput(
            f"the results folder cannot be written: {problem.strerror}", run.own, "choose another --root"
        ) from None


# What nnU-Net and ppgs write into a fold's folder.
_OF_A_RUN = re.compile(
    r"ppgs|validation(_raw)?|checkpoint_\w+\.pth|progress\.(png|csv)|debug\.json|emissions\.csv"
    r"|training_log_[\d_]+\.txt|network_architecture.*|postprocessing\.(json|pkl)"
)


def _check_only_a_run(run: RunFolder) -> None:
    """Raise `RunExists` if the run's folder holds files that are not the run's."""
    if run.path.is_symlink():
        raise RunExists("the run's folder is a link", run.path, "remove the link yourself, or use --name")
    others = sorted(p.name for p in run.path.iterdir() if not (_OF_A_RUN.fullmatch(p.name) or is_leftover(p)))
    if others or not run.manifest.is_file():
        what = (
            f"the folder contains more than the run: {', '.join(others[:5])}"
            if others
            else "the folder contains no run"
        )
        raise RunExists(f"{what}; --overwrite would delete it", run.path, "move that elsewhere, or use --name")


def discard(run: RunFolder) -> None:
    """Remove a run that never started, and the folders made only for it."""
    shutil.rmtree(run.path, ignore_errors=True)
    for folder in (run.model, run.model.parent):
        try:
            folder.rmdir()
        except OSError:
            return


def never_began(run: RunFolder) -> bool:
    """Return whether nothing of a run is worth keeping: no schedule was frozen and nothing was trained."""
    return not any(path.exists() for path in (run.checkpoint_latest, run.checkpoint_final, run.checkpoint_best))


class TrainingChild:
    """The process that trains a run, as seen by the command that started it."""

    def __init__(
        self,
        run: RunFolder,
        roots: Roots,
        *,
        detached: bool,
        environ: Mapping[str, str] | None = None,
        validate: Checkpoint | None = None,
    ) -> None:
        """Start it. Unless `detached`, it ends with this process, however that ends.

        With `validate` it does nothing but validate by that checkpoint.
        """
        self.run = run
        self._tail = Tail(run.events)
        self._tail.read()
        request = read_manifest(run).request
        trackers = chosen_trackers(request.log, os.environ) if validate is None else ()
        several = request.processes > 1 and launched(os.environ) == 1 and validate is None
        command = [sys.executable, "-m", f"ppgs.nnunet.process{'.launch' if several else ''}", str(run.path)]
        if several:
            command += ["--gpus", str(request.processes), "--restarts", str(request.restarts or 0)]
        if validate is not None:
            command += ["--validate", validate]
        if not detached:
            command += ["--with-parent", str(os.getpid())]
        try:
            log = run.log.open("ab")
        except OSError as problem:
            raise BadInput(
                f"the run cannot be written ({problem.strerror})", run.path, "mount it writable, or copy it elsewhere"
            ) from None
        with log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **roots.environment, "PYTHONUNBUFFERED": "1", **(environ or {})},
                # A new session: a Ctrl-C is for the command, which passes it on once.
                start_new_session=True,
            )
        self.trackers = TrackersBeside(run, trackers, self.process.pid)

    def follow(self, interval: float = 0.2) -> Iterator[list[Record]]:
        """Yield batches of new records (empty ones too, every `interval` seconds) until the process has ended."""
        while True:
            ended = self.process.poll() is not None
            while records := self._tail.read():
                yield records
            if ended:
                return
            yield []
            time.sleep(interval)

    def news(self) -> list[Record]:
        """Return new records without waiting."""
        records: list[Record] = []
        while chunk := self._tail.read():
            records += chunk
        return records

    def stop(self) -> None:
        """Ask it to stop with a checkpoint."""
        if self.process.poll() is None:
            self.process.terminate()

    def _raise_untold(self) -> None:
        """Raise the storage error of a process that could not record why it stopped."""
        try:
            told = read_manifest(self.run).status == "stopped"
        except RunError:
            told = False
        if not told and (failure := failing_storage(self.run.path)) is not None:
            raise failure

    def raise_failure(self) -> None:
        """Raise the error of an ended process; return if it finished or was stopped on request."""
        code = self.process.returncode
        if code == ExitCode.STOPPED:
            self._raise_untold()
        if code in (ExitCode.DONE, ExitCode.STOPPED):
            return
        try:
            manifest = read_manifest(self.run)
        except NoSuchRun:
            raise moved_away(self.run) from None
        if manifest.status == "failed" and manifest.error is not None:
            error = from_record(manifest.error)
            if manifest.schedule_hash is None and never_began(self.run):
                discard(self.run)
            raise error
        raise PpgsError(
            f"the training process {exit_text(code)}",
            self.run.log,
            f"'ppgs resume {manifest.name}' continues from its checkpoint",
        )
