"""Planning of a run's schedule while it trains, by its budget; without a budget the schedule stays as it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ppgs.errors import StoppedEarly
from ppgs.estimate import training_budget
from ppgs.estimate.preflight import costs_of, guess_costs
from ppgs.formatting import duration
from ppgs.plans import Dataset, Plans
from ppgs.runs.atomic import write_text
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import PlanFacts, Recipe, Schedule, dump, parse
from ppgs.schedule.auto import first_share
from ppgs.schedule.replan import in_parts
from ppgs.schedule.requests import make_schedule

# Enough epochs that rounding does not change the shape.
_SHAPE_EPOCHS = 100_000
# The part of the budget that measuring the machine may take beforehand.
_MEASURING = 0.05


class BudgetPlanner:
    """Plans the unsettled stages of one run; every decision is saved before anything trains by it."""

    def __init__(
        self,
        run: RunFolder,
        manifest: Manifest,
        plans: Plans,
        dataset: Dataset,
        emit: Callable[..., None],
        processes: int,
    ) -> None:
        self._run, self._manifest, self._plans, self._dataset = run, manifest, plans, dataset
        self._emit, self._processes = emit, processes
        self._request = manifest.request
        self._is_unknown = False
        # Costs of the stages as estimated, by patch and batch size, for viewers.
        self.costs: Mapping[tuple[tuple[int, ...], int], dict[str, Any]] = {}
        self._is_late = self._is_warming = False

    def shape(self, facts: PlanFacts) -> Schedule:
        """Return the requested schedule with no stage settled; only its shape counts."""
        request = self._request
        content = parse(request.schedule, request.schedule_name)
        if not isinstance(content, Recipe):
            return in_parts(make_schedule(request, facts))
        request = request.model_copy(update={"epochs": _SHAPE_EPOCHS})
        schedule = make_schedule(request, facts)
        # Also if the iterations are given: measuring must not count as training.
        self._emit("preparing", step="measuring this machine", done=0, total=0)
        most, guess = schedule.iterations_per_epoch, self._guess(schedule)
        if request.iterations is None:
            fewer = training_budget.iterations_that_suit(most, request, guess, time.time())
            request = request.model_copy(update={"iterations": fewer})
            schedule = make_schedule(request, facts)
        chosen = request.from_stage is not None or request.start_patch is not None
        if content.mode == "auto" and content.start == "smallest" and not chosen:
            schedule = self._auto(content, request, schedule, facts, guess)
        return in_parts(schedule)

    def _auto(
        self,
        content: Recipe,
        request: TrainingRequest,
        schedule: Schedule,
        facts: PlanFacts,
        guess: training_budget.Guess | None,
    ) -> Schedule:
        """Return the schedule that mode `auto` chooses for a training as long as the budget."""
        whole = training_budget.seconds_in_all(request, time.time())
        if guess is None or whole is None:
            return schedule
        started = content.model_copy(update={"start": first_share(whole / guess.iteration[-1]) or "smallest"})
        return make_schedule(request.model_copy(update={"schedule": dump(started)}), facts)

    def __call__(self, schedule: Schedule) -> Schedule:
        """Settle the stage that begins now."""
        manifest, run = self._manifest, self._run
        decision = training_budget.decide(
            schedule, read_events(run.events), self._request, now=time.time(), guess=self._guess
        )
        planned = decision.schedule
        # In this order a kill at any point leaves a schedule that the manifest refers to.
        manifest.schedules = list(dict.fromkeys([*manifest.schedules, schedule.digest, planned.digest]))
        write_manifest(run, manifest)
        write_text(run.schedule, dump(planned))
        manifest.schedule_hash = planned.digest
        write_manifest(run, manifest)
        self._emit(
            "budget_planned",
            durable=True,
            budget=self._request.ends,
            epoch=decision.epoch,
            epochs=planned.epochs,
            stages=described(planned, self.costs),
            epoch_seconds=decision.epoch_seconds,
            validation_seconds=decision.validation,
            spent=decision.spent,
            **({} if decision.left is None else {"left_seconds": decision.left}),
        )
        if decision.late > 0 and not self._is_late:
            self._is_late = True
            validation = duration(decision.validation)
            self._emit(
                "warning",
                message=f"the training will end about {duration(decision.late)} late: one epoch in every stage to "
                f"come, and the final validation ({validation}), take longer than the time that is left",
            )
        problem = planned.learning_rate.problem(planned.epochs)
        if problem is not None and decision.left is not None and not self._is_warming:
            self._is_warming = True
            self._emit("warning", message=f"as many epochs as fit are within the warm-up: {problem}")
        return planned

    def _guess(self, schedule: Schedule) -> training_budget.Guess | None:
        """Estimate costs before training, with real steps if the machine is not calibrated; None if that fails."""
        if self._is_unknown:
            return None
        whole = training_budget.seconds_in_all(self._request, time.time())
        try:
            device, plans = str(self._manifest.device), self._plans
            configuration = plans.configuration(self._manifest.configuration)
            costs = costs_of(plans, configuration, self._dataset, device=device, gpus=self._processes, augmented=None)
            most = math.inf if whole is None else _MEASURING * whole
            guess = guess_costs(schedule, costs, device=device, most_seconds=most)
            if guess.uncalibrated is not None:
                self._emit("warning", message=f"the time of an epoch is uncalibrated: {guess.uncalibrated}")
            return guess
        except StoppedEarly:
            raise
        except Exception as problem:  # the first stage is measured all the same
            self._is_unknown = True
            self._emit("warning", message=f"the time of an epoch is not known beforehand: {problem}")
            return None


def described(schedule: Schedule, costs: Mapping[tuple[tuple[int, ...], int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stages as in `run_started` and `budget_planned`; `costs` are estimates by patch and batch size."""
    return [
        {
            "patch_size": stage.patch_size,
            "batch_size": stage.batch_size,
            "epochs": stage.epochs,
            "voxels": stage.voxels,
            "validation_iterations": schedule.validation_iterations_at(schedule.first_epoch(index)),
            "validation_interval": schedule.validation_interval(index),
            **costs.get((stage.patch_size, stage.batch_size), {}),
        }
        for index, stage in enumerate(schedule.stages)
    ]
