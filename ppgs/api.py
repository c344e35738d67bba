"""The commands as Python functions, for notebooks and scripts.

A schedule is planned without data, GPU or torch; its stages are plain values:

    >>> import ppgs
    >>> plan = ppgs.plan_schedule("Task04_Hippocampus", epochs=300)
    >>> for stage in plan.schedule.stages[:3]:
    ...     print(stage.patch_size, stage.batch_size, stage.epochs)
    (8, 8, 8) 9 20
    (16, 8, 8) 9 20
    (16, 16, 8) 9 20
    >>> plan.schedule.stage_at(299).patch_size
    (40, 56, 40)
    >>> round(plan.estimate.relative.voxels, 2), plan.estimate.fits
    (0.32, True)

A training runs in a separate process, followed until it ends; `run` gives access to its results:

    >>> run = ppgs.train("demo", schedule="constant", epochs=2, iterations=1, device="cpu")
    >>> run.name, run.status
    ('demo-constant-fold0', 'finished')
    >>> [event["epoch"] for event in ppgs.read_events(run) if event["type"] == "epoch_finished"]
    [0, 1]
    >>> sorted(run.state.dice)
    ['lesion', 'organ']
    >>> files = ppgs.predict(run, "images", "segmentations", device="cpu")
    >>> [str(file) for file in files]
    ['segmentations/demo_024.nii.gz']

What cannot be done raises a `PpgsError`, whose `problems` say what, where and what to do:

    >>> try:
    ...     ppgs.train("demo", schedule="eficiency")
    ... except ppgs.PpgsError as error:
    ...     print(error, "-", error.problems[0].remedy)
    there is no schedule 'eficiency' - did you mean 'efficiency'?
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppgs.commands import plan_schedule as planning
from ppgs.commands.plan_schedule import Result as Plan
from ppgs.commands.predict import predict as segment
from ppgs.commands.predict_plan import PredictRequest, choose_folds, plan_prediction
from ppgs.commands.prepare import prepare
from ppgs.commands.resume import check_resumable, choose_run
from ppgs.commands.runs import list_runs
from ppgs.commands.train.child import TrainingChild
from ppgs.commands.train.plan import create_run
from ppgs.errors import ExitCode, PpgsError, StoppedEarly
from ppgs.runs.events import Record
from ppgs.runs.events import read_events as read_log
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.registry import find_run as find_folder
from ppgs.runs.request import TrainingRequest
from ppgs.runs.state import RunState
from ppgs.schedule import Schedule, Stage
from ppgs.tasks import Roots

__all__ = [
    "Plan",
    "PpgsError",
    "Run",
    "Schedule",
    "Stage",
    "find_run",
    "find_runs",
    "plan_schedule",
    "predict",
    "read_events",
    "resume",
    "train",
]

Place = str | os.PathLike[str]


@dataclass(frozen=True)
class Run:
    """A training on disk, live or finished; every property reads the current state."""

    path: Path

    @property
    def manifest(self) -> Manifest:
        """The request and the current status; raises `DamagedRun`."""
        return read_manifest(RunFolder(self.path))

    @property
    def name(self) -> str:
        """Its name in `ppgs runs`."""
        return self.manifest.name

    @property
    def status(self) -> str:
        """`preparing`, `training`, `validating`, `finished`, `stopped`, `failed`, or `queued` in Slurm."""
        return self.manifest.status

    @property
    def state(self) -> RunState:
        """Current state folded from the events: stage, epoch, finished epochs, and Dice of the validation by class."""
        state = RunState().apply_all(read_events(self))
        if is_held(RunFolder(self.path).lock) is None:
            state.leave_validation()
        return state


def plan_schedule(
    task: Place,
    schedule: Place | None = None,
    *,
    configuration: str = "3d_fullres",
    plans: str = "nnUNetPlans",
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    gpu_memory: str | None = None,
    device: str = "auto",
    fit: bool = False,
    root: Place | None = None,
    **options: Any,
) -> Plan:
    """`ppgs plan-schedule`: the schedule of a task and what it costs.

    `options` are the others of `PlanRequest` (mirroring, from_stage, start_patch, pretrained, budget, fill, gpus,
    calibrate, against).
    `plan.schedule` has the stages (patch sizes are (z, y, x) in voxels), `plan.estimate` memory in bytes, FLOPs, and
    seconds where this machine was calibrated. Raises `PlansError`, `DatasetError` or `ScheduleError`; a schedule that
    does not fit is a plan whose `check_fits()` raises `DoesNotFit`.
    """
    roots = _roots(root)
    request = planning.PlanRequest.of(
        task=task,
        schedule=schedule,
        configuration=configuration,
        plans=plans,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        gpu_memory=gpu_memory,
        device=device,
        fit=fit,
        **options,
    )
    if planning.lacks_demo(request.task, request.plans, roots):
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(request.task, roots, request.plans, request.configuration, lambda *_: None)
    return planning.plan_schedule(request, roots)


def train(
    task: Place,
    schedule: Place = "efficiency",
    *,
    fold: int | str = 0,
    root: Place | None = None,
    on_event: Callable[[Record], object] | None = None,
    **options: Any,
) -> Run:
    """`ppgs train` of one fold (0, 1, ... or `"all"`): prepares what is missing, trains, validates; returns the run.

    `options` are those of `TrainingRequest` (epochs, iterations, batch_size, configuration, plans, device, seed,
    workers, energy, name, overwrite, ...). `on_event` is called with every record of the event log as it is written. An
    interruption stops the training with a checkpoint before it is raised again; `resume` continues it. Raises
    `BadInput`, `RunExists`, what kept the training from finishing, or `StoppedEarly`.
    """
    roots = _roots(root)
    asked = TrainingRequest.of(task=task, schedule=schedule, **options)
    return _follow(create_run(asked, fold, roots), roots, on_event)


def resume(run: Run | Place, *, root: Place | None = None, on_event: Callable[[Record], object] | None = None) -> Run:
    """`ppgs resume`: continues a stopped run to its end. Raises as `train`, and `RunError` where that cannot be."""
    chosen, roots = choose_run(_name(run), None if root is None else Path(root), os.environ)
    check_resumable(chosen)
    return _follow(chosen, roots, on_event)


def predict(
    run: Run | Place,
    images: Place,
    output: Place,
    *,
    folds: str | None = None,
    root: Place | None = None,
    **options: Any,
) -> list[Path]:
    """`ppgs predict`: segments an image, a folder, a pattern or a list of them; returns the files written.

    `folds` (`"0-4"`) of one model are ensembled; default: the run's own, or all finished ones of a model. `options` are
    those of `PredictRequest` (checkpoint, device, mirroring, step_size, probabilities, recursive, part, statistics,
    overlay, ...). Without `gpus` the work is done in this process. Raises `NoSuchRun`, `NoCheckpoint`, `DatasetError`.
    """
    asked = PredictRequest(run=_name(run), source=Path(images), target=Path(output), folds=folds, **options)
    roots = _roots(root)
    # nnU-Net prints while it predicts.
    asked, runs = choose_folds(asked, roots)
    planned = plan_prediction(asked, runs, roots)
    with contextlib.redirect_stdout(io.StringIO()):
        return segment(asked, planned, runs, roots, lambda _, __: None).files


def find_run(run: Place, *, root: Place | None = None) -> Run:
    """Return the run of that name or in that folder; raises `NoSuchRun` with the nearest name."""
    return Run(find_folder(os.fspath(run), _roots(root).results).path)


def find_runs(*, root: Place | None = None) -> list[Run]:
    """Return all runs listed by `ppgs runs`, the oldest first."""
    return [Run(row.path) for row in list_runs(_roots(root).results)]


def read_events(run: Run | Place) -> list[Record]:
    """Read all complete records of a run's event log (or a log file); each has `type`, `seq` and `time` (unix s)."""
    path = run.path if isinstance(run, Run) else Path(run)
    return read_log(path if path.is_file() else RunFolder(path).events)


def _roots(root: Place | None) -> Roots:
    return Roots.choose(None if root is None else Path(root), os.environ)


def _name(run: Run | Place) -> str:
    return str(run.path) if isinstance(run, Run) else os.fspath(run)


def _follow(run: RunFolder, roots: Roots, on_event: Callable[[Record], object] | None) -> Run:
    child = TrainingChild(run, roots, detached=False)
    # Errors of `on_event` too.
    with child.saved_on_error():
        for records in child.follow():
            for record in records if on_event is not None else ():
                on_event(record)  # type: ignore[misc]
    child.trackers.wait()
    child.raise_failure()
    if child.process.returncode == ExitCode.STOPPED:
        raise child.stopped_by() or StoppedEarly("the training was stopped", run.path, "ppgs.resume continues it")
    return Run(run.path)
