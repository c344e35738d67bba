"""`plan-schedule`: estimates the cost of a training without data, GPU or torch.

torch reads the checkpoint of `--pretrained`, and takes the steps of `--calibrate`.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppgs import shipped
from ppgs.commands.pretrained import find_weights, open_weights
from ppgs.errors import BadInput, DatasetError, PlansError
from ppgs.estimate import cards
from ppgs.estimate.budget import parse_budget, propose
from ppgs.estimate.calibration import Calibration, calibrate, keep
from ppgs.estimate.cost import Costs, Estimate, as_json
from ppgs.estimate.machine import choose_machine, runs_on_gpu
from ppgs.estimate.network import Network
from ppgs.estimate.preflight import arrivals_on
from ppgs.estimate.remedies import fill, fit, refusal
from ppgs.estimate.shipped_tasks import read_task
from ppgs.estimate.tracer import Tracer
from ppgs.plans import Plans, load_dataset, load_plans, load_plans_of, read_json
from ppgs.runs.request import ScheduleOptions, TrainingRequest
from ppgs.schedule import PlanFacts, Recipe, Schedule, dump, parse
from ppgs.schedule.pacing import Pacing
from ppgs.schedule.requests import make_schedule, read_schedule
from ppgs.tasks import DEMO, DEMO_DATASET, Roots, dataset_id, resolve_task

if TYPE_CHECKING:
    from ppgs.runs.folder import RunFolder


class PlanRequest(ScheduleOptions):
    """The options of `plan-schedule`. `schedule` is None for the default: the run's with `against`, else the task's."""

    schedule: str | None = None
    fill: bool = False
    budget: str | None = None
    against: str | None = None
    calibrate: bool = False
    pretrained: str | None = None


@dataclass(frozen=True)
class Subject:
    """The task: the plan's facts, its network and the recipe to start with.

    `raw_plans` are nnU-Net's own, or what the plans that ship with ppgs tell of them (not `complete`). `cascade`: it is
    a cascade's second stage.
    """

    task: str
    facts: PlanFacts
    network: Network
    image_size: tuple[float, ...] | None
    raw_plans: dict[str, Any]
    schedule: str = "efficiency"
    complete: bool = True
    cascade: bool = False


@dataclass(frozen=True)
class Measured:
    """Measured cost of one stage of a run: median epoch in seconds, energy, peak memory in bytes; None if unknown."""

    stage: int
    epochs: int
    seconds: float | None
    memory: int | None
    energy_wh: float | None


@dataclass(frozen=True)
class Result:
    """Result: the estimate, changes made to fit memory or a budget, notes, and a run's measured figures."""

    subject: Subject
    estimate: Estimate
    costs: Costs
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    calibration: Calibration | None = None

    @property
    def schedule(self) -> Schedule:
        return self.estimate.schedule

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `plan-schedule --json`."""
        facts = self.subject.facts
        value = {
            "task": self.subject.task,
            "configuration": facts.configuration,
            "plans": facts.plans,
            "schedule": self.schedule.name,
            **as_json(self.estimate),
            "changes": list(self.changes),
            "notes": list(self.notes),
        }
        if self.measured:
            value["measured"] = [
                {
                    "stage": m.stage,
                    "epochs": m.epochs,
                    "seconds_per_epoch": m.seconds,
                    "peak_memory_bytes": m.memory,
                    "energy_wh_per_epoch": m.energy_wh,
                }
                for m in self.measured
            ]
        return value

    def check_fits(self) -> None:
        """Raise `DoesNotFit` with stages, amounts and remedies if the schedule does not fit."""
        if not self.estimate.fits:
            raise refusal(self.estimate, self.costs)


def plan_schedule(request: PlanRequest, roots: Roots, say: Callable[[str], None] = lambda _: None) -> Result:
    """Resolve, check and estimate a schedule; raises `PpgsError`. One that does not fit is a result (`check_fits`)."""
    subject = read_subject(request, roots)
    compared = [] if request.pretrained is None else [_compare_plans(request.pretrained, subject, roots)]
    run = _find_run(request, roots)
    wanted = _wanted(request, subject, run)
    schedule = make_schedule(wanted, subject.facts)
    recipe = parse(wanted.schedule)
    budget = parse_budget(request.budget) if request.budget is not None else None
    if budget is not None and not isinstance(recipe, Recipe):
        raise BadInput("explicit stages have no epochs to choose", "--budget", "give a recipe, such as efficiency")

    tracer = Tracer(subject.network, mixed=runs_on_gpu(request.device))
    calibration = _calibrate(request, tracer, schedule, say) if request.calibrate else None
    machine = choose_machine(request.device, request.gpu_memory, calibration)
    patch, image = subject.facts.patch_size, subject.image_size
    arrivals = arrivals_on(request.device, subject.network, patch, image, augmented=not subject.cascade)
    costs = Costs(tracer, subject.facts, machine, image, gpus=request.gpus or 1, arrivals=arrivals)
    # Remedies change batches; what they are compared with stays what was asked for.
    reference = schedule.stages[-1].batch_size

    words: dict[str, list[str]] = {}

    def remedied(schedule: Schedule) -> Schedule:
        said = []
        for asked, change in ((request.fill, fill), (request.fit, fit)):
            if asked:
                schedule, done = change(schedule, costs)
                said += done
        words[schedule.digest] = said
        return schedule

    changes: list[str] = []
    if budget is not None and isinstance(recipe, Recipe):
        if recipe.mode == "auto" and wanted.from_stage is not None:
            # Its stages are other ones in a shorter training.
            first = ",".join(map(str, schedule.stages[0].patch_size))
            wanted = wanted.model_copy(update={"from_stage": None, "start_patch": first})
        least = max(len(schedule.stages), recipe.learning_rate.warmup + 1)

        def make(epochs: int, pacing: Pacing) -> Estimate:
            paced = wanted.model_copy(
                update={"schedule": dump(recipe.model_copy(update={"pacing": pacing})), "epochs": epochs}
            )
            return costs.estimate(remedied(make_schedule(paced, subject.facts)), reference)

        met, changes = propose(make, schedule.epochs, recipe.pacing, least, budget)
        schedule = met.schedule
    else:
        schedule = remedied(schedule)
    notes = [*compared, *machine.notes]
    if budget is not None and budget.kind == "time" and machine.rough is not None:
        notes.append("the budget is met by the middle of the uncalibrated range; the training may take longer")
    return Result(
        subject=subject,
        estimate=costs.estimate(schedule, reference),
        costs=costs,
        changes=(*changes, *words[schedule.digest]),
        notes=tuple(notes),
        measured=_measured(run, schedule) if run is not None else (),
        calibration=calibration,
    )


def lacks_demo(task: str, plans: str, roots: Roots) -> bool:
    """Return whether the task is the demo, which is made on the spot, and is not prepared with these plans."""
    return task == DEMO and not (roots.preprocessed / DEMO_DATASET / f"{plans}.json").is_file()


def read_subject(request: PlanRequest, roots: Roots) -> Subject:
    """Return plans, dataset and network of TASK; raises `PlansError` or `DatasetError` naming what is missing."""
    given = request.task
    if given in shipped.tasks() and not _is_prepared(given, request.plans, roots):
        return _shipped(request)
    if given.endswith(".json"):
        plans = Path(given)
        return _from_files(plans, load_plans(plans), plans.parent / "dataset.json", request, None)
    try:
        task = resolve_task(given, roots)
    except DatasetError as error:
        remedy = error.problems[0].remedy
        if not remedy.startswith("did you mean"):
            remedy = f"{remedy} (or: {', '.join(shipped.tasks())})"[:600]
        raise DatasetError(str(error), error.problems[0].where, remedy) from None
    folder = roots.preprocessed / task.dataset
    plans = folder / f"{request.plans}.json"
    if not plans.is_file():
        there = sorted(p.stem for p in folder.glob("*Plans*.json"))
        example = f"; default plans are known without data: ppgs plan-schedule {_shipped_name(task.dataset)}"
        raise PlansError(
            f"'{given}' has no plans '{request.plans}' yet",
            plans,
            f"there are: {', '.join(there)}"
            if there
            else f"make them with 'ppgs prepare {given}'{example if _shipped_name(task.dataset) else ''}",
        )
    checked = load_plans_of(folder, request.plans)
    dataset = next((p for p in (folder, roots.raw / task.dataset) if (p / "dataset.json").is_file()), folder)
    name = task.given if task.kind == "demo" else task.dataset
    return _from_files(plans, checked, dataset / "dataset.json", request, name)


def _is_prepared(given: str, plans: str, roots: Roots) -> bool:
    try:
        return (roots.preprocessed / resolve_task(given, roots).dataset / f"{plans}.json").is_file()
    except DatasetError:
        return False


def _shipped_name(dataset: str) -> str | None:
    name = f"Task{dataset_id(dataset):02d}_{dataset.partition('_')[2]}"
    return name if name in shipped.tasks() else None


def _shipped(request: PlanRequest) -> Subject:
    known = read_task(request.task)
    facts = known.made_for
    for option, wanted, there in (
        ("--configuration", request.configuration, facts.configuration),
        ("--plans", request.plans, facts.plans),
    ):
        if wanted != there:
            raise PlansError(
                f"only '{there}' of {request.task} ships with ppgs, not '{wanted}'",
                option,
                f"prepare the task, or give the path to its {request.plans}.json",
            )
    network = known.network
    architecture = {
        "network_class_name": network.class_name,
        "arch_kwargs": network.kwargs,
        "_kw_requires_import": list(network.imports),
    }
    told = {"patch_size": list(facts.patch_size), "architecture": architecture}
    raw = {"configurations": {facts.configuration: told}}
    return Subject(known.task, facts, network, known.median_image_size, raw, known.schedule, complete=False)


def _from_files(plans_file: Path, plans: Plans, dataset_file: Path, request: PlanRequest, task: str | None) -> Subject:
    configuration = plans.configuration(request.configuration)
    dataset = load_dataset(dataset_file)
    return Subject(
        task or plans.dataset,
        PlanFacts.of(plans, configuration),
        Network.of(configuration, dataset),
        configuration.median_image_size,
        read_json(plans_file),
        cascade=configuration.previous_stage is not None,
    )


def _compare_plans(given: str, subject: Subject, roots: Roots) -> str:
    """Return a note that says whether the plans match those of the checkpoint; raises as `find_weights`."""
    source = find_weights(given, roots.results)
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.checkpoints.pretrained import read_pretrained

    with open_weights(source) as content:
        # torch reads from the end, which takes a zip long.
        pretrained = read_pretrained(io.BytesIO(content.read()), given)
    if not pretrained.plans:
        return "the checkpoint has no plans of nnU-Net: whether these match it is unknown"
    advice = pretrained.advice(subject.raw_plans, subject.facts.configuration, subject.task, str(source))
    part = "" if subject.complete else " in patch size and network; the plans that ship with ppgs do not tell the rest"
    return advice or f"the plans agree with those of the checkpoint{part}"


def _wanted(request: PlanRequest, subject: Subject, run: RunFolder | None) -> TrainingRequest:
    """Return the requested schedule: the option, else the run's own, else the task's; the demo's is short."""
    if request.schedule is None and run is not None:
        name, text = read_schedule(str(run.schedule))
    else:
        name, text = read_schedule(request.schedule or subject.schedule, demo=subject.task == DEMO)
    return TrainingRequest(**request.shared(), schedule=text, schedule_name=name)


def _calibrate(request: PlanRequest, tracer: Tracer, schedule: Schedule, say: Callable[[str], None]) -> Calibration:
    device = request.device if request.device != "auto" else ("cuda" if cards.present() else "cpu")
    say(f"taking real steps on {device}; this takes less than a minute")
    points = [
        (patch, stage.batch_size // stage.accumulation)
        for stage in schedule.stages
        for patch in (stage.patch_choices or (stage.patch_size,))
    ]
    calibration = calibrate(tracer, points, device)
    keep(calibration)
    return calibration


def _find_run(request: PlanRequest, roots: Roots) -> RunFolder | None:
    if request.against is None:
        return None
    # Imported only when needed: most plans are compared with no run.
    from ppgs.runs.registry import find_run

    return find_run(request.against, roots.results)


def _measured(run: RunFolder, schedule: Schedule) -> tuple[Measured, ...]:
    """Return the measured cost of each stage; raises `BadInput` if the run trained other stages."""
    from ppgs.runs.events import read_events

    events = read_events(run.events)
    # A run with a budget plans its remaining stages again before every stage.
    started = [e for e in events if e["type"] in ("run_started", "budget_planned")]
    if not started:
        raise BadInput("the run has not trained yet", run.path, "give one that has finished an epoch")
    theirs = [(tuple(s["patch_size"]), s["batch_size"]) for s in started[-1].get("stages", [])]
    ours = [(s.patch_size, s.batch_size) for s in schedule.stages]
    if theirs != ours:
        raise BadInput("the run trained other stages", run.path, "drop --schedule, so that the run's own is taken")
    by_stage: dict[int, dict[int, Any]] = {}
    for event in events:
        if event["type"] == "epoch_finished" and isinstance(event.get("stage"), int):
            by_stage.setdefault(event["stage"], {})[event["epoch"]] = event
    return tuple(_stage_measured(stage, list(epochs.values())) for stage, epochs in sorted(by_stage.items()))


def _stage_measured(stage: int, epochs: list[dict[str, Any]]) -> Measured:
    def values(key: str) -> list[float]:
        return [e[key] for e in epochs if isinstance(e.get(key), (int, float))]

    seconds, memory, energy = values("seconds"), values("peak_memory_bytes"), values("energy_wh")
    return Measured(
        stage=stage,
        epochs=len(epochs),
        seconds=statistics.median(seconds) if seconds else None,
        memory=int(max(memory)) if memory else None,
        energy_wh=statistics.median(energy) if energy else None,
    )
