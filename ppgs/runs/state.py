"""Folds an event log into the present state of a run: what every viewer and progress line shows.

Records that this module reads, beyond `v`, `seq`, `time` and `type`:

- `run_queued`: where (the queue that it waits in)
- `preparing`: step, done, total
- `run_started`: epoch and iteration it starts from, epochs, iterations_per_epoch, resumed, stages (patch_size,
  batch_size, epochs, voxels of one patch; memory_bytes and flops_per_iteration as estimated, where they are)
- `stage_started`: stage, epoch, patch_size, batch_size
- `iterations`: epoch, stage, iteration, iterations, phase (`train` or `validation`), loss
- `epoch_finished`: as in the surface, and train_seconds
- `slice_written`: epoch, stage, file (in `ppgs/slices`), case, slice_dice (per class, null where it is not there)
- `checkpoint_saved`: epoch, iteration, seconds
- `validation_started`: cases; `validation_progress`: done, total; `validation_finished`: dice, mean
- `warning`: message
- `run_finished`, `run_stopped` (reason), `run_failed` (reason, error)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ppgs.runs.events import Record
from ppgs.runs.manifest import Status


@dataclass(frozen=True)
class StageFacts:
    """What of a stage the time to come depends on; `work` is voxels times batch of one iteration."""

    patch_size: tuple[int, ...]
    batch_size: int
    epochs: int
    work: float


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
    epoch: int = 0
    stage: int = 0
    iteration: int = 0
    iterations: int = 0
    phase: str = "train"
    loss: float | None = None
    finished_epochs: dict[int, Record] = field(default_factory=dict)
    dice: dict[str, float] | None = None
    mean_dice: float | None = None
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    reason: str | None = None
    checkpoint_epoch: int | None = None
    started: float | None = None
    last_seen: float | None = None
    # Times of the last record that told of progress (many only say that the run lives), and of the step's first.
    progressed: float | None = None
    step_began: float | None = None

    def apply(self, record: Record) -> None:
        """Take one record into account; unknown types and missing fields change nothing."""
        self.last_seen = record.get("time", self.last_seen)
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
        """The step that the run is in, and how far it is."""
        far = (self.done, self.stage, self.epoch, self.iteration, self.phase, self.checkpoint_epoch, self.mean_dice)
        return (self.status, self.step), far

    def apply_all(self, records: Iterable[Record]) -> RunState:
        for record in records:
            self.apply(record)
        return self

    def _on_run_queued(self, record: Record) -> None:
        self.status, self.reason = "queued", None
        self.step, self.done, self.total = f"waits in {record.get('where', 'a queue')}", 0, 0

    def _on_preparing(self, record: Record) -> None:
        self.status = "preparing"
        self.step, self.done, self.total = record.get("step"), record.get("done", 0), record.get("total", 0)

    def _on_run_started(self, record: Record) -> None:
        self.status = "training"
        self.error = self.reason = None
        self.epoch = record.get("epoch", 0)
        self.iteration = record.get("iteration", 0)
        self.epochs = record.get("epochs", 0)
        self.iterations = self.iterations_per_epoch = record.get("iterations_per_epoch", 0)
        self.stages = [
            StageFacts(tuple(s["patch_size"]), s["batch_size"], s["epochs"], s["voxels"] * s["batch_size"])
            for s in record.get("stages", [])
        ]
        if self.started is None:
            self.started = record.get("time")
        # Epochs that were logged after the checkpoint that this start continues from are trained again.
        self.finished_epochs = {e: r for e, r in self.finished_epochs.items() if e < self.epoch}

    def _on_stage_started(self, record: Record) -> None:
        self.stage = record.get("stage", self.stage)

    def _on_iterations(self, record: Record) -> None:
        self.status = "training"
        self.epoch = record.get("epoch", self.epoch)
        self.stage = record.get("stage", self.stage)
        self.iteration = record.get("iteration", 0)
        self.iterations = record.get("iterations", 0)
        self.phase = record.get("phase", "train")
        self.loss = record.get("loss")

    def _on_epoch_finished(self, record: Record) -> None:
        epoch = record.get("epoch", self.epoch)
        self.finished_epochs[epoch] = record
        self.stage = record.get("stage", self.stage)
        self.epoch, self.iteration, self.phase = epoch + 1, 0, "train"

    def _on_checkpoint_saved(self, record: Record) -> None:
        self.checkpoint_epoch = record.get("epoch")

    def _on_validation_started(self, record: Record) -> None:
        self.status = "validating"
        self.done, self.total = 0, record.get("cases", 0)

    def _on_validation_progress(self, record: Record) -> None:
        self.status = "validating"
        self.done, self.total = record.get("done", self.done), record.get("total", self.total)

    def _on_validation_finished(self, record: Record) -> None:
        self.dice, self.mean_dice = record.get("dice"), record.get("mean")

    def _on_warning(self, record: Record) -> None:
        self.warnings.append(str(record.get("message", "")))

    def _on_run_finished(self, _: Record) -> None:
        self.status = "finished"

    def _on_run_stopped(self, record: Record) -> None:
        self.status, self.reason, self.error = "stopped", record.get("reason"), record.get("error")

    def _on_run_failed(self, record: Record) -> None:
        self.status, self.reason, self.error = "failed", record.get("reason"), record.get("error")

    @property
    def last_epoch(self) -> Record | None:
        return self.finished_epochs[max(self.finished_epochs)] if self.finished_epochs else None

    @property
    def stage_seconds(self) -> list[float] | None:
        """Seconds an epoch of every stage takes, measured or estimated; None before the first epoch is done."""
        return epoch_seconds(self.stages, list(self.finished_epochs.values()))

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the training time to come, or None before the first epoch is done."""
        per_epoch = self.stage_seconds
        if per_epoch is None:
            return None
        left, first = 0.0, 0
        for stage, seconds in zip(self.stages, per_epoch, strict=True):
            begun = min(max(self.epoch - first, 0), stage.epochs)
            left += (stage.epochs - begun) * seconds
            if 0 <= self.epoch - first < stage.epochs and self.iterations:
                left -= seconds * (self.iteration / self.iterations if self.phase == "train" else 1.0)
            first += stage.epochs
        return max(left, 0.0)


def epoch_seconds(stages: Sequence[StageFacts], finished: Sequence[Record]) -> list[float] | None:
    """Seconds an epoch of every stage takes: measured where it was, else from `seconds = a + b * work`.

    Later stages cost more, so the mean so far would be far too low. With one measured stage the fixed part is taken
    as that of 10 % of the last stage's work, which is about what launching a step costs on CPUs and GPUs alike; with
    more, both parts are fitted (least squares, not negative).
    """
    measured: dict[int, list[float]] = {}
    for record in finished:
        stage, seconds = record.get("stage"), record.get("seconds")
        if isinstance(stage, int) and isinstance(seconds, (int, float)) and 0 <= stage < len(stages):
            measured.setdefault(stage, []).append(float(seconds))
    if not measured or not stages:
        return None
    means = {stage: sorted(values)[len(values) // 2] for stage, values in measured.items()}
    fixed = 0.10 * stages[-1].work
    points = [(stages[i].work, seconds) for i, seconds in means.items()]
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0
    base = y_mean - slope * x_mean
    if len(points) < 3 or slope <= 0 or base < 0:
        latest = max(means)
        slope = means[latest] / (stages[latest].work + fixed)
        base = slope * fixed
    return [means.get(i, base + slope * stage.work) for i, stage in enumerate(stages)]
