"""The present state of a run, folded from its event log: what every viewer and progress line shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ppgs.runs import event_types as types
from ppgs.runs.events import Record
from ppgs.runs.manifest import Status
from ppgs.runs.time_left import EpochTimes, Forecast, Span, StageFacts, is_number, validation_left

# What a process does from its start until it trains is a pause for what came before.
_PAUSES = ("run_queued", "preparing", "run_started")


@dataclass
class RunState:
    """The state of a run after the records folded so far."""

    status: Status = "preparing"
    step: str | None = None
    done: int = 0
    total: int = 0
    epochs: int = 0
    iterations_per_epoch: int = 0
    stages: list[StageFacts] = field(default_factory=list)
    # Seconds of an epoch of every stage as estimated before any was trained; empty where that is not known of all.
    expected: list[Span] = field(default_factory=list)
    epoch: int = 0
    stage: int = 0
    iteration: int = 0
    iterations: int = 0
    phase: str = "train"
    loss: float | None = None
    finished_epochs: dict[int, Record] = field(default_factory=dict)
    dice: dict[str, float | None] | None = None
    mean_dice: float | None = None
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    reason: str | None = None
    checkpoint_epoch: int | None = None
    begun: dict[int, int] = field(default_factory=dict)
    final_validation: dict[str, Any] | None = None
    processes: int = 1
    # Epochs after which the training ended early, for good.
    ended_after: int | None = None
    validation_began: float | None = None
    # Where the run stood when `validate` began to repeat its validation.
    stood: Status | None = None
    validated_seconds: float = 0.0
    started: float | None = None
    last_seen: float | None = None
    # Times of the last record with progress (many only say that the run lives), and of the step's first.
    progressed: float | None = None
    step_began: float | None = None
    # Seconds of training and validation by all processes so far: without pauses and preparations.
    worked: float = 0.0

    def apply(self, record: Record) -> None:
        """Fold one record in; unknown types and missing fields change nothing."""
        now = record.get("time", self.last_seen)
        if self.last_seen is not None and record["type"] not in _PAUSES and isinstance(now, (int, float)):
            self.worked += max(now - self.last_seen, 0.0)
        self.last_seen = now
        step, place = self._place
        handler = getattr(self, f"_on_{record['type']}", None)
        if handler is not None:
            handler(record)
        if self._place != (step, place) or self.progressed is None:
            self.progressed = self.last_seen
        if self._place[0] != step or self.step_began is None:
            self.step_began = self.last_seen

    @property
    def _place(self) -> tuple[object, object]:
        """The run's present step and its progress."""
        far = (self.done, self.stage, self.epoch, self.iteration, self.phase, self.checkpoint_epoch, self.mean_dice)
        return (self.status, self.step), far

    def apply_all(self, records: Iterable[Record]) -> RunState:
        for record in records:
            self.apply(record)
        return self

    def _on_run_queued(self, record: types.RunQueued) -> None:
        self.status, self.reason = "queued", None
        self.step, self.done, self.total = f"waits in {record.get('where', 'a queue')}", 0, 0

    def _on_preparing(self, record: types.Preparing) -> None:
        self.status = "preparing"
        self.step, self.done, self.total = record.get("step"), record.get("done") or 0, record.get("total") or 0

    def _on_run_started(self, record: types.RunStarted) -> None:
        self.status = "training"
        self.error = self.reason = self.stood = None
        self.epoch = record.get("epoch", 0)
        self.iteration = record.get("iteration", 0)
        self.epochs = record.get("epochs", 0)
        self.iterations = self.iterations_per_epoch = record.get("iterations_per_epoch", 0)
        self.stages, self.expected = stages_of(record.get("stages", [])), expected_of(record.get("stages", []))
        final = record.get("final_validation")
        self.final_validation = final if isinstance(final, dict) else None
        processes = record.get("processes")
        self.processes = processes if isinstance(processes, int) and processes > 0 else 1
        if type(self.epoch) is int and type(self.iteration) is int:
            # Epochs in which a process began, and at which iteration.
            self.begun = {e: i for e, i in self.begun.items() if e < self.epoch} | {self.epoch: self.iteration}
        if self.started is None:
            self.started = record.get("time")
        if self.ended_after is not None and self.epoch < self.ended_after:
            self.ended_after = None
        # Only the validation is left then.
        self._leave_out_what_is_not_trained()
        # Epochs that were logged after the checkpoint that this start continues from are trained again.
        self.finished_epochs = {e: r for e, r in self.finished_epochs.items() if e < self.epoch}

    def _on_early_stopping(self, record: types.EarlyStopping) -> None:
        epoch = record.get("epoch")
        self.ended_after = epoch + 1 if type(epoch) is int else None
        self._leave_out_what_is_not_trained()

    def _leave_out_what_is_not_trained(self) -> None:
        """Cut the stages where the training ended early (with a budget, several are parts of the last one)."""
        if self.ended_after is None or not 0 < self.ended_after < self.epochs:
            return
        self.epochs, first, trained = self.ended_after, 0, list[StageFacts]()
        for stage in self.stages:
            if first < self.epochs:
                trained.append(replace(stage, epochs=min(stage.epochs, self.epochs - first)))
            first += stage.epochs
        self.stages, self.expected = trained, self.expected[: len(trained)]

    def _on_budget_planned(self, record: types.BudgetPlanned) -> None:
        self.stages, self.expected = stages_of(record.get("stages", [])), expected_of(record.get("stages", []))
        self.epochs = record.get("epochs", self.epochs)

    def _on_stage_started(self, record: types.StageStarted) -> None:
        self.stage = record.get("stage", self.stage)

    def _on_iterations(self, record: types.Iterations) -> None:
        self.status = "training"
        self.epoch = record.get("epoch", self.epoch)
        self.stage = record.get("stage", self.stage)
        self.iteration = record.get("iteration", 0)
        self.iterations = record.get("iterations", 0)
        self.phase = record.get("phase", "train")
        self.loss = record.get("loss")

    def _on_epoch_finished(self, record: types.EpochFinished) -> None:
        epoch = record.get("epoch", self.epoch)
        self._keep_epoch(epoch, record)
        self.stage = record.get("stage", self.stage)
        self.epoch, self.iteration, self.phase = epoch + 1, 0, "train"

    def _keep_epoch(self, epoch: int, record: types.EpochFinished) -> None:
        self.finished_epochs[epoch] = {**record}

    def _on_checkpoint_saved(self, record: types.CheckpointSaved) -> None:
        self.checkpoint_epoch = record.get("epoch")

    def _on_validation_started(self, record: types.ValidationStarted) -> None:
        if "checkpoint" in record and self.stood is None:
            self.stood = self.status
        self.status = "validating"
        self.done, self.total = 0, record.get("cases") or 0
        self.validation_began, self.validated_seconds = record.get("time"), 0.0

    def _on_validation_progress(self, record: types.ValidationProgress) -> None:
        self.status = "validating"
        self.done, self.total = record.get("done") or self.done, record.get("total") or self.total
        now = record.get("time")
        if now is not None and self.validation_began is not None:
            self.validated_seconds = max(now - self.validation_began, 0.0)

    def _on_validation_finished(self, record: types.ValidationFinished) -> None:
        if record.get("checkpoint", "final") == "final":
            self.dice, self.mean_dice = record.get("dice"), record.get("mean")
        self._stand_again()

    def _on_validation_stopped(self, _: types.ValidationStopped) -> None:
        self._stand_again()

    def abandon_validation(self) -> RunState:
        """Return to where the run stood before `validate`, whose process was killed: call if no process works on it."""
        self._stand_again()
        return self

    def _stand_again(self) -> None:
        if self.stood is not None:
            self.status, self.stood = self.stood, None

    def _on_warning(self, record: types.Warned) -> None:
        self.warnings.append(str(record.get("message", "")))

    def _on_run_finished(self, _: types.RunFinished) -> None:
        self.status = "finished"

    def _on_run_stopped(self, record: types.RunStopped) -> None:
        self.status, self.reason, self.error = "stopped", record.get("reason"), record.get("error")

    def _on_run_failed(self, record: types.RunFailed) -> None:
        self.status, self.reason, self.error = "failed", record.get("reason"), record.get("error")

    @property
    def last_epoch(self) -> Record | None:
        return self.finished_epochs[max(self.finished_epochs)] if self.finished_epochs else None

    @property
    def forecast(self) -> Forecast | None:
        """The cost of every stage's epochs, based on the finished ones; None before the first."""
        records = [self.finished_epochs[epoch] for epoch in sorted(self.finished_epochs)]
        names = ("epoch", "stage", "seconds", "train_seconds", "validation_seconds")
        return self._forecast([tuple(record.get(name) for name in names) for record in records])

    def _forecast(self, epochs: Iterable[Sequence[Any]]) -> Forecast | None:
        """Make a forecast from epochs in order: number, stage, and seconds in total, of training and of validation."""
        usual, unusual = [], []
        for epoch, *facts in epochs:
            times = EpochTimes.of(*facts)
            if times is None:
                continue
            # A process that begins warms up first, and may begin within an epoch.
            if epoch not in self.begun:
                usual.append(times)
            elif self.iterations_per_epoch > self.begun[epoch]:
                unusual.append(
                    times.scaled(self.iterations_per_epoch / (self.iterations_per_epoch - self.begun[epoch]))
                )
        measured = [times for times in usual or unusual if times.stage < len(self.stages)]
        return Forecast(self.stages, self.iterations_per_epoch, measured) if measured else None

    @property
    def stage_seconds(self) -> list[float] | None:
        """The seconds of an epoch of every stage, measured or predicted; None before the first epoch is done."""
        return None if (forecast := self.forecast) is None else forecast.stage_seconds

    @property
    def training_left(self) -> Span | None:
        """The remaining training time: from finished epochs, before the first as estimated, else None."""
        return self._training_left(self.forecast)

    def _training_left(self, forecast: Forecast | None) -> Span | None:
        if forecast is None:
            return self._expected_left()
        done = self._phase_done
        return forecast.training(self.epoch, *((done, 0.0) if self.phase == "train" else (1.0, done)))

    @property
    def _phase_done(self) -> float:
        """The share of the present epoch's iterations, of training or of validation, that is done."""
        return min(max(self.iteration / self.iterations, 0.0), 1.0) if self.iterations > 0 else 0.0

    def _expected_left(self) -> Span | None:
        """Return the remaining training time as estimated beforehand."""
        if not self.expected:
            return None
        left, first = Span(0.0, 0.0, 0.0), 0
        for stage, span in zip(self.stages, self.expected, strict=True):
            left += span.times(stage.epochs - min(max(self.epoch - first, 0), stage.epochs))
            first += stage.epochs
        return left

    @property
    def left(self) -> Span | None:
        """The remaining time of training and final validation; None while nothing is known of it."""
        if self.status == "finished":
            return Span(0.0, 0.0, 0.0)
        forecast = self.forecast
        expected = None if forecast is None else forecast.final_validation(self.final_validation, self.processes)
        if self.status == "validating":
            return validation_left(expected, self.validated_seconds, self.done, self.total)
        training = self._training_left(forecast)
        return training + expected if training is not None and expected is not None else training

    @property
    def seconds_left(self) -> float | None:
        """The expected value of `left`."""
        return None if (left := self.left) is None else left.middle


def expected_of(descriptions: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Return the estimated epoch time of every stage in `run_started`; empty if it is missing or invalid."""
    found = []
    for one in descriptions:
        seconds = one.get("epoch_seconds")
        if not isinstance(seconds, list) or len(seconds) != 3 or not all(is_number(value) for value in seconds):
            return []
        low, middle, high = seconds
        found.append(Span(low, middle, high, uncalibrated=one.get("calibrated") is not True))
    return found


def stages_of(descriptions: Sequence[Mapping[str, Any]]) -> list[StageFacts]:
    """Return the stages of `run_started`; their work is in FLOPs if known for all, else in voxels."""
    flops = [one.get("flops_per_iteration") for one in descriptions]
    known = all(isinstance(value, int) and value > 0 for value in flops)
    return [
        StageFacts(
            tuple(one["patch_size"]),
            one["batch_size"],
            one["epochs"],
            float(work if known and work is not None else one["voxels"] * one["batch_size"]),
            count if isinstance(count := one.get("validation_iterations"), int) and count > 0 else None,
            every if isinstance(every := one.get("validation_interval"), int) and every > 0 else 1,
        )
        for one, work in zip(descriptions, flops, strict=True)
    ]
