"""Data of one run for the monitor: its folder, read in pieces on a timer.

No inotify, so that folders mounted from other machines work; no clock of the other machine is compared with ours.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ppgs.errors import PpgsError
from ppgs.runs import event_types as types
from ppgs.runs.emissions import EMISSIONS, read_emissions
from ppgs.runs.events import Record, Tail
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Owner, is_held, owner_of
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.names import WORKING
from ppgs.runs.queue import job_of, waits
from ppgs.runs.stalled import patience, stalled_since
from ppgs.runs.state import RunState
from ppgs.runs.time_left import RECENT, Forecast, Span
from ppgs.tui.palette import Shown
from ppgs.tui.series import Series

# Parsed in some 10 ms, so that keys are answered in between.
READ_BYTES = 250_000
LOG_BYTES = 400_000
LOG_LINES = 5_000
_NEWEST = 25
_WARNINGS = 1_000
_SLICES = 1_000
_MOST_CLASSES = 256
_GRACE_SECONDS = 20.0
# The age of another machine's lock is found by writing beside it; it goes stale only after ten minutes.
_REMOTE_SECONDS = 30.0
# Slurm is asked about a queued run's job only this often: many monitors may be open for days.
_QUEUE_SECONDS = 30.0
_COUNTS = ("epoch", "epochs", "iteration", "iterations", "stage", "done", "total")


@dataclass(frozen=True)
class SliceFacts:
    """A picture of the training; `dice` of the slice for every class, `written` by its machine's clock."""

    epoch: int
    stage: int
    file: str
    case: str
    dice: tuple[float | None, ...]
    written: float


class ViewState(RunState):
    """`RunState` in bounded memory: epochs go into the columns of `series`, not into `finished_epochs`."""

    def __init__(self) -> None:
        super().__init__()
        self.series = Series()
        self.stage_records: list[dict[str, Any]] = []
        # By epoch, never changed but replaced.
        self.slices: dict[int, SliceFacts] = {}
        self.damaged = 0
        self._known: tuple[object, Forecast | None] = (None, None)

    def apply(self, record: Record) -> None:
        """Apply a record as `RunState.apply`, but count invalid ones instead of raising."""
        before = [getattr(self, name) for name in _COUNTS]
        try:
            super().apply(record)
            if all(type(getattr(self, name)) is int for name in _COUNTS):
                return
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, ZeroDivisionError):
            pass
        self.damaged += 1
        for name, value in zip(_COUNTS, before, strict=True):
            setattr(self, name, value)

    def apply_all(self, records: Iterable[Record]) -> ViewState:
        """Apply records: finished epochs together, and of progress only the newest."""
        for kind, group in groupby(records, lambda record: record["type"]):
            if kind == "epoch_finished":
                epochs = list(group)
                # The last one also gives the state of the training.
                self.damaged += self.series.extend(epochs[:-1])
                self.apply(epochs[-1])
            elif kind == "iterations":
                for record in deque(group, maxlen=1):
                    self.apply(record)
            else:
                for record in group:
                    self.apply(record)
        return self

    def _on_run_started(self, record: types.RunStarted) -> None:
        super()._on_run_started(record)
        self.stage_records = [{**stage} for stage in record.get("stages", [])]
        self.series.forget_from(self.epoch)
        self.slices = {epoch: one for epoch, one in self.slices.items() if epoch < self.epoch}

    def _on_budget_planned(self, record: types.BudgetPlanned) -> None:
        super()._on_budget_planned(record)
        self.stage_records = [{**stage} for stage in record.get("stages", [])]

    def _keep_epoch(self, epoch: int, record: types.EpochFinished) -> None:  # noqa: ARG002  (of the base)
        if not self.series.append({**record}):
            raise ValueError("an epoch that is no number")

    def _on_warning(self, record: types.Warned) -> None:
        super()._on_warning(record)
        del self.warnings[:-_WARNINGS]

    def _on_slice_written(self, record: types.SliceWritten) -> None:
        epoch, file, dice = record["epoch"], record["file"], record.get("slice_dice") or []
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise ValueError("a picture outside the folder")
        values = tuple(None if value is None else float(value) for value in dice[:_MOST_CLASSES])
        when = float(record.get("time") or 0)
        one = SliceFacts(epoch, max(record["stage"], 0), file, str(record.get("case", "")), values, when)
        # Epochs after one that is trained again are obsolete, as in the series.
        self.slices = {earlier: kept for earlier, kept in self.slices.items() if earlier < epoch} | {epoch: one}
        if len(self.slices) > _SLICES:
            del self.slices[next(iter(self.slices))]

    @property
    def forecast(self) -> Forecast | None:
        version = (self.series.version, self.stages, self.begun)
        if self._known[0] != version:
            columns = [self.series.columns[n] for n in ("seconds", "train_seconds", "validation_seconds")]
            epochs = [
                (self.series.epochs[i], stage, *(column[i] for column in columns))
                for stage in range(len(self.stages))
                for i in self.series.of_stage(stage)[-2 * RECENT :]
            ]
            self._known = version, self._forecast(epochs)
        return self._known[1]

    @property
    def fraction(self) -> float:
        """The share of the whole training's time that is over."""
        if self.epochs and self.epoch >= self.epochs:
            return 1.0
        forecast, spent = self.forecast, self.series.total("seconds")
        left = self._training_left(forecast)
        # Epochs that are finished, and all of the present one and those to come.
        whole = None if forecast is None or spent is None else spent + forecast.training(self.epoch).middle
        if left is None or not whole:
            done = self._phase_done if self.phase == "train" else 1.0
            return min(max((self.epoch + done) / self.epochs, 0.0), 1.0) if self.epochs else 0.0
        return min(max(1 - left.middle / whole, 0.0), 1.0)

    def power(self) -> float | None:
        """Return watt-hours per second in the newest epochs."""
        where = range(len(self.series))
        energy, seconds = (self.series.newest(name, where, _NEWEST) for name in ("energy_wh", "seconds"))
        return sum(energy) / sum(seconds) if energy and len(energy) == len(seconds) and sum(seconds) > 0 else None

    @property
    def stage_energy(self) -> list[float] | None:
        """Watt-hours of an epoch of every stage: measured, or its seconds at the newest power."""
        seconds, power = self.stage_seconds, self.power()
        if seconds is None or power is None:
            return None
        measured = [self.series.mean("energy_wh", self.series.of_stage(stage)) for stage in range(len(self.stages))]
        return [each * power if known is None else known for each, known in zip(seconds, measured, strict=True)]

    def saved(self, costs: list[float] | None) -> tuple[float, float] | None:
        """Estimate the saved share and amount against constant patch size, whose epochs cost as the last stage's.

        `costs` are those of an epoch of every stage.
        """
        if costs is None or len(self.stages) < 2:
            return None
        constant = costs[-1] * sum(stage.epochs for stage in self.stages)
        curriculum = sum(cost * stage.epochs for cost, stage in zip(costs, self.stages, strict=True))
        return (1 - curriculum / constant, constant - curriculum) if constant > 0 else None


class LogTail:
    """The end of `train.log`: its last lines first, then new ones; starts again if the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: int | None = None
        self._inode: int | None = None
        self._rest = b""

    def read(self) -> tuple[list[str], bool]:
        """Return new lines, and whether the log started again."""
        anew = False
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if self._inode not in (None, status.st_ino) or status.st_size < (self._offset or 0):
                    self._offset, self._rest, anew = None, b"", True
                self._inode = status.st_ino
                jump = status.st_size - LOG_BYTES
                if jump > (self._offset or 0):
                    self._offset, self._rest = jump, b""
                file.seek(self._offset or 0)
                content = file.read(LOG_BYTES)
                self._offset = file.tell()
        except OSError:
            return [], False
        *lines, self._rest = (self._rest + content).split(b"\n")
        # A log without line ends must not grow here without bound.
        self._rest = self._rest[-LOG_BYTES:]
        return [_clean(line) for line in lines], anew


def _clean(line: bytes) -> str:
    """Return the text of a line that a terminal may show: without overwritten parts and control characters."""
    text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1][:2000].decode("utf-8", "replace").expandtabs(4)
    return "".join(c for c in text if c.isprintable())


@dataclass
class Batch:
    """The data of one reading."""

    records: list[Record] = field(default_factory=list)
    restarted: bool = False
    lines: list[str] = field(default_factory=list)
    log_restarted: bool = False
    manifest: Manifest | None = None
    problem: str | None = None
    owner: Owner | None = None
    has_events: bool = False
    # True if any of the event log was read, even if all of it was damaged.
    advanced: bool = False
    is_behind: bool = False
    # Lines of the event log that are no records.
    damaged: int = 0
    left_queue: bool = False


class LockWatch:
    """The process that trains a run: checked at every reading on this machine, less often on others."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._remote: tuple[Owner, Owner | None, float] | None = None

    def owner(self) -> Owner | None:
        written = owner_of(self._path)
        if written is None or written.is_local:
            return is_held(self._path)
        if self._remote is None or written != self._remote[0] or self._clock() - self._remote[2] > _REMOTE_SECONDS:
            self._remote = written, is_held(self._path), self._clock()
        return self._remote[1]


class WatchedRun:
    """One run on the screen. `read` may run in a thread; `take` belongs to the application."""

    def __init__(self, run: RunFolder, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.state = ViewState()
        self.manifest: Manifest | None = None
        self.problem: str | None = None
        self.owner: Owner | None = None
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.line_count = 0
        self.log_restarts = 0
        # Whether a process started by this monitor's command works on it.
        self.own_process = False
        # Foreground classes in the order of pseudo Dice, with the labels that make them up.
        self.classes: list[tuple[str, tuple[int, ...]]] = []
        # kg CO2eq for a kWh and the country, as the run's own energy record has them.
        self.carbon: tuple[float, str] | None = None
        self._has_events = False
        # True until the event log is read to its end.
        self.is_behind = False
        self._damaged = 0
        self._left_queue = False
        self._asked_queue: tuple[object, float] | None = None
        self._clock = clock
        self._since = self._moved = clock()
        self._tail = Tail(run.events)
        self._log = LogTail(run.log)
        self._batch = Batch()
        self._lock = LockWatch(run.lock, clock)
        self._manifest_seen: object = None

    def read(self) -> Batch:
        """Read what is new, within a budget."""
        last, batch = self._batch, Batch()
        # Nothing else is read until a long log is read to its end.
        behind = last.advanced
        # The lock before the log: a process that ends in between has then written its last record.
        batch.owner = last.owner if behind else self._lock.owner()
        batch.has_events = behind or _exists(self.run.events, last.has_events)
        before = self._tail.offset
        batch.records = self._tail.read(READ_BYTES)
        batch.restarted, batch.is_behind, batch.damaged = self._tail.restarted, self._tail.is_behind, self._tail.damaged
        batch.advanced = bool(batch.records) or self._tail.offset != before
        if not batch.advanced:
            self.carbon = self.carbon or _carbon(self.run.path / EMISSIONS)
            batch.lines, batch.log_restarted = self._log.read()
        if not behind:
            # nnU-Net writes it later than the run's first manifest.
            self.classes = self.classes or _classes(self.run.model / "dataset.json")
        batch.problem = last.problem if behind else self._read_manifest(batch)
        batch.left_queue = last.left_queue if behind else self._leaves_queue(batch)
        self._batch = batch
        return batch

    def _read_manifest(self, batch: Batch) -> str | None:
        """Read the manifest if it has changed, and its faults."""
        try:
            status = self.run.manifest.stat()
            seen: object = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            seen = None
        if seen is not None and seen == self._manifest_seen:
            return None
        try:
            batch.manifest = read_manifest(self.run)
        except PpgsError as error:
            return str(error)
        self._manifest_seen = seen
        return None

    def _leaves_queue(self, batch: Batch) -> bool:
        """Return whether a run that was queued neither waits nor trains: its job was cancelled or never submitted."""
        manifest = batch.manifest or self.manifest
        if batch.owner is not None or manifest is None or manifest.status != "queued":
            self._asked_queue = None
            return False
        job = (manifest.updated, job_of(self.run))
        asked = self._asked_queue
        if asked is not None and asked[0] == job and self._clock() - asked[1] < _QUEUE_SECONDS:
            return self._batch.left_queue
        self._asked_queue = job, self._clock()
        return not waits(self.run, manifest)

    def take(self, batch: Batch) -> bool:
        """Apply a reading; return whether there was anything new in the event log."""
        if batch.restarted:
            self.state = ViewState()
        before = self.state.progressed
        self.state.apply_all(batch.records)
        if self.state.progressed != before:
            self._moved = self._clock()
        if batch.log_restarted:
            self.lines.clear()
            self.line_count = 0
            self.log_restarts += 1
        self.lines.extend(batch.lines)
        self.line_count += len(batch.lines)
        self.manifest = batch.manifest or self.manifest
        self.problem = batch.problem
        self.owner = batch.owner
        self._has_events = batch.has_events
        self.is_behind, self._damaged, self._left_queue = batch.is_behind, batch.damaged, batch.left_queue
        return batch.advanced

    @property
    def name(self) -> str:
        return self.manifest.name if self.manifest is not None else self.run.path.name

    @property
    def class_names(self) -> list[str]:
        return [name for name, _ in self.classes]

    @property
    def is_live(self) -> bool:
        return self.owner is not None or self.own_process

    @property
    def damaged(self) -> int:
        """Lines and records of the event log that were skipped."""
        return self._damaged + self.state.damaged

    @property
    def left(self) -> Span | None:
        """The remaining time of a working run; None while unknown or until its log is read to the end."""
        return self.state.left if self.status in ("training", "validating") and not self.is_behind else None

    def stalled_since(self, now: float) -> float | None:
        """Return when a live run last made progress if that is too long ago; `now` is wall-clock time."""
        # Until the log is read to its end, the last record read is an old one.
        if not self.is_live or self.is_behind or self.status not in WORKING:
            return None
        if self.owner is not None and not self.owner.is_local:
            # By local observations: no clock of the other machine is compared with ours.
            quiet = self._clock() - self._moved
            return now - quiet if quiet > patience(self.state) else None
        return stalled_since(self.state, now)

    @property
    def status(self) -> Shown:
        """The run's status; `presumed dead` if its process, or the job it waits for, is gone without a last record."""
        status = self._recorded
        return "presumed dead" if status == "queued" and self._left_queue else status

    @property
    def _recorded(self) -> Shown:
        state, manifest = self.state, self.manifest
        if self.is_live or (self._has_events and state.status not in WORKING):
            return state.status
        if manifest is None:
            return "no data"
        if manifest.status not in WORKING:
            return manifest.status
        if not self._has_events and self._clock() - self._since < _GRACE_SECONDS:
            return "preparing"
        return "presumed dead"


def _exists(path: Path, before: bool) -> bool:
    """Return whether a file exists; as `before` if the file system does not answer."""
    try:
        return path.exists()
    except OSError:
        return before


def _carbon(path: Path) -> tuple[float, str] | None:
    try:
        record = read_emissions(path)
    except PpgsError:
        return None
    if record is None or record.energy_kwh <= 0:
        return None
    return record.co2_kg / record.energy_kwh, record.country or "country unknown"


def _classes(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Read the classes from dataset.json beside the folds, in nnU-Net's order: labels by value, regions as listed."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        found = [
            (str(name), tuple(map(int, value if isinstance(value, list) else [value])))
            for name, value in labels.items()
            if name not in ("background", "ignore") and value != 0
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
    has_regions = any(len(values) > 1 for _, values in found)
    return found if has_regions else sorted(found, key=lambda one: one[1])
