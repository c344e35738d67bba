"""Planning of a run: prepares the task, freezes and checks the schedule, predicts the costs.

Only the first process does this; the others receive the outcome (`ppgs.nnunet.trainer.factory.Job`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppgs.errors import DamagedRun, ScheduleError, StoppedEarly
from ppgs.estimate.cost import Costs
from ppgs.estimate.preflight import check_memory, costs_of
from ppgs.nnunet.inference.next_stage import make_first_stage
from ppgs.nnunet.preparation.pipeline import Preparation
from ppgs.nnunet.process.budget import BudgetPlanner
from ppgs.plans import Dataset, Plans, parse_dataset, parse_plans, read_json
from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, write_manifest
from ppgs.runs.older import OlderRuns, case_digests, read_data, write_data
from ppgs.runs.prepared import difference
from ppgs.runs.provenance import check_origin, origin_of
from ppgs.runs.registry import has_trained
from ppgs.runs.time_left import Span
from ppgs.schedule import PlanFacts, Schedule, dump, parse
from ppgs.schedule.recipe import check
from ppgs.schedule.replan import with_all_settled
from ppgs.schedule.requests import make_schedule
from ppgs.tasks import Roots
from ppgs.trainers import MIRRORS, Trainers

if TYPE_CHECKING:
    from ppgs.nnunet.trainer.factory import Job


@dataclass(frozen=True)
class Planned:
    """A training that may begin. Plans and `dataset.json` are given as nnU-Net needs them and parsed.

    `planner` settles the stages of a schedule that has a budget.
    """

    schedule: Schedule
    raw_plans: dict[str, Any]
    plans: Plans
    raw_dataset: dict[str, Any]
    dataset: Dataset
    first_stage: Path | None
    planner: BudgetPlanner | None = None

    def job(
        self, manifest: Manifest, device: Any, predicted: list[dict[str, Any]], *, trained: bool, continuing: bool
    ) -> Job:
        """Return what every process needs to build the trainer; see `Job`."""
        from ppgs.nnunet.trainer.factory import Job

        return Job(
            manifest=manifest,
            schedule=self.schedule,
            plans=self.raw_plans,
            dataset=self.raw_dataset,
            device=device.type,
            first_stage=None if self.first_stage is None else str(self.first_stage),
            predicted=predicted,
            trained=trained,
            continuing=continuing,
        )


class Planning:
    """Prepares one run, in `processes` that train together; `as_prepared`, whatever became of its raw data."""

    def __init__(
        self,
        run: RunFolder,
        manifest: Manifest,
        roots: Roots,
        emit: Callable[..., None],
        processes: int,
        *,
        as_prepared: bool = False,
    ) -> None:
        self.run, self.manifest, self.roots = run, manifest, roots
        self._emit, self._processes = emit, processes
        self._as_prepared = as_prepared or manifest.request.as_prepared
        self._reported = 0.0
        # The run's name if it has trained on its data, so that it continues on no other.
        self._begun = manifest.name if has_trained(run) else None

    def plan(self) -> Planned:
        """Prepare what is missing and freeze the schedule. Raises what keeps the training from beginning."""
        manifest = self.manifest
        preparation = self._preparation(manifest.configuration)
        preparation.run(lambda: self._note_origin(preparation.preprocessed))
        raw = read_json(preparation.plans_file)
        plans = parse_plans(raw, preparation.plans_file)
        dataset_file = preparation.preprocessed / "dataset.json"
        raw_dataset = read_json(dataset_file)
        dataset = parse_dataset(raw_dataset, dataset_file)
        preparation.check_fold(manifest.fold)
        planner = None
        if manifest.request.ends is not None:
            planner = BudgetPlanner(self.run, manifest, plans, dataset, self._emit, self._processes)
        schedule = self._schedule(plans, dataset, planner)
        first_stage = make_first_stage(
            self.run, manifest, self.roots, plans, self._report, lambda stage: self._preparation(stage).run()
        )
        return Planned(schedule, raw, plans, raw_dataset, dataset, first_stage, planner)

    def _preparation(self, configuration: str) -> Preparation:
        manifest, request = self.manifest, self.manifest.request
        return Preparation(
            request.task_of(manifest.dataset),
            self.roots,
            manifest.plans,
            configuration,
            self._report,
            geometry=request.geometry,
            warn=self._warn,
            run=self.run,
            begun=self._begun,
            as_prepared=self._as_prepared,
        )

    def _schedule(self, plans: Plans, dataset: Dataset, planner: BudgetPlanner | None) -> Schedule:
        """Return the run's frozen schedule; if none suits and nothing was trained, freeze the requested one."""
        manifest, facts = self.manifest, PlanFacts.of(plans, plans.configuration(self.manifest.configuration))
        if self.run.schedule.is_file():
            frozen = parse(self.run.schedule.read_text(encoding="utf-8"), self.run.schedule)
            if not isinstance(frozen, Schedule):
                raise DamagedRun("the frozen schedule has no stages", self.run.schedule)
            if manifest.schedule_hash not in (None, frozen.digest) and frozen.digest not in manifest.schedules:
                raise DamagedRun(
                    "schedule.yaml is not the schedule that this run began with",
                    self.run.schedule,
                    "restore it; to train another schedule start a new run",
                )
            try:
                check(frozen, facts, self.run.schedule)
                return frozen
            except ScheduleError:
                if self._begun is not None:
                    raise
            self._warn("the plans changed before anything was trained: the schedule is made for the new ones")
        # A run's frozen schedule that another one trains is final.
        asked = with_all_settled(make_schedule(manifest.request, facts)) if planner is None else planner.shape(facts)
        schedule = self._fitting(asked, plans, dataset)
        if anew := manifest.schedule_hash is not None:
            # In this order a kill at any point leaves a schedule that the manifest does not contradict.
            manifest.schedule_hash = None
            write_manifest(self.run, manifest)
        write_text(self.run.schedule, dump(schedule))
        if anew:
            # After an error the command removes a run without it as one that never began.
            manifest.schedule_hash = schedule.digest
            write_manifest(self.run, manifest)
        self._suggest_mirroring(schedule, dataset)
        return schedule

    def _warn(self, message: str) -> None:
        self._emit("warning", message=message)

    def _report(self, step: str, done: int, total: int) -> None:
        if done in (0, 1, total) or time.monotonic() - self._reported > 0.25:
            self._reported = time.monotonic()
            self._emit("preparing", step=step, done=done, total=total)

    def _note_origin(self, preprocessed: Path) -> None:
        """Compare the prepared data with those that the run was started with, or record them."""
        manifest = self.manifest
        origin = origin_of(preprocessed, manifest.plans, manifest.fold)
        cases = case_digests(preprocessed, manifest.fold)
        if self._begun is not None:
            before = read_data(self.run)
            if "data" not in manifest.origin and OlderRuns(preprocessed.parent)(manifest):
                manifest.origin["data"] = "not recorded"
            check_origin(
                manifest.origin,
                origin,
                preprocessed,
                manifest.plans,
                None if before is None else difference(before, cases),
            )
            manifest.origin = {**origin, **manifest.origin}
        else:
            manifest.origin = origin
        if cases:
            write_data(self.run, cases)
        write_manifest(self.run, manifest)

    def _suggest_mirroring(self, schedule: Schedule, dataset: Dataset) -> None:
        if schedule.mirroring is not None or not dataset.sides:
            return
        line = Trainers.of(os.environ).line(self.manifest.request.trainer)
        if not any(MIRRORS in one.methods for one in line):
            left, right = dataset.sides[0]
            self._emit(
                "warning",
                message=f"'{left}' and '{right}' differ only by side, which small mirrored patches cannot "
                "show: train with --mirroring off (--mirroring on says that mirroring is meant)",
            )

    def _fitting(self, schedule: Schedule, plans: Plans, dataset: Dataset) -> Schedule:
        """Return the schedule for the given memory (on a GPU: for the card's); raises `DoesNotFit`."""
        manifest, request = self.manifest, self.manifest.request
        on_gpu = manifest.device is not None and manifest.device.startswith("cuda")
        if request.gpu_memory is None and not on_gpu:
            return schedule
        configuration = plans.configuration(manifest.configuration)
        if not configuration.is_unet:
            self._emit("warning", message=f"memory is not estimated for {configuration.architecture}")
            return schedule
        self._emit("preparing", step="estimating memory", done=0, total=0)
        costs = self._costs(plans, dataset, request.gpu_memory or "auto")
        fitting, _, changes = check_memory(schedule, costs, apply_remedies=request.fit)
        for change in changes:
            self._emit("warning", message=f"changed to fit the memory: {change}")
        return fitting

    def _costs(self, plans: Plans, dataset: Dataset, gpu_memory: str | None = None) -> Costs:
        manifest = self.manifest
        return costs_of(
            plans,
            plans.configuration(manifest.configuration),
            dataset,
            device=str(manifest.device),
            gpus=self._processes,
            gpu_memory=gpu_memory,
            augmented=manifest.request.augmentation == "batchwise",
        )

    def predicted(self, planned: Planned) -> list[dict[str, Any]]:
        """Estimate memory, FLOPs and time of every stage, for viewers and comparisons; empty if that fails."""
        self._emit("preparing", step="estimating costs", done=0, total=0)
        try:
            estimate = self._costs(planned.plans, planned.dataset).estimate(planned.schedule)
        except StoppedEarly:
            raise
        except Exception as problem:  # a network that cannot be traced trains all the same
            self._emit("warning", message=f"memory and FLOPs cannot be estimated: {problem}")
            return [{} for _ in planned.schedule.stages]
        return [
            {"memory_bytes": s.memory.expected, "flops_per_iteration": s.flops, **_epoch_seconds(s.epoch_span)}
            for s in estimate.stages
        ]


def _epoch_seconds(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    return {"epoch_seconds": [span.low, span.middle, span.high], "calibrated": not span.uncalibrated}
