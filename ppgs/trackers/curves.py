"""Curves of a run as trackers show them, folded from its event log."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ppgs.runs.event_types import StageDescription
from ppgs.runs.events import Record

_SCALARS = (
    "train_loss",
    "val_loss",
    "ema_dice",
    "learning_rate",
    "seconds",
    "data_wait_seconds",
    "validation_seconds",
    "peak_memory_bytes",
)


@dataclass(frozen=True)
class Point:
    """Scalars after an epoch, and what the training had taken by then; `kwh` is None where energy is not measured."""

    time: float
    epoch: int
    iteration: int
    hours: float
    kwh: float | None
    scalars: dict[str, float]

    @property
    def axes(self) -> dict[str, float]:
        """The values of the axes."""
        axes = {"epoch": float(self.epoch), "iteration": float(self.iteration), "hours": self.hours}
        return axes if self.kwh is None else {**axes, "kWh": self.kwh}

    @property
    def steps(self) -> dict[str, int]:
        """The axes as integers, for trackers that need them: hours in seconds, kWh in mWh."""
        steps = {"by_epoch": self.epoch, "by_iteration": self.iteration, "by_second": round(3600 * self.hours)}
        return steps if self.kwh is None else {**steps, "by_mWh": round(1e6 * self.kwh)}


@dataclass(frozen=True)
class Slice:
    """A picture of a validation case: a file in `ppgs/slices`."""

    time: float
    iteration: int
    file: str


@dataclass(frozen=True)
class Result:
    """Dice of the final validation by class, and `mean`."""

    time: float
    iteration: int
    dice: dict[str, float]


class Curves:
    """Folds records into what trackers show. Epochs that a resume trains again are already shown."""

    def __init__(self) -> None:
        self._per_epoch = 0
        self._stages: list[StageDescription] = []
        self._spent = _Spent()
        self._epoch = self._pictured = 0

    def apply(self, record: Record) -> Iterator[Point | Slice | Result]:
        """Yield what a record adds."""
        kind, time = record["type"], float(record.get("time") or 0)
        if kind in ("run_started", "budget_planned"):
            self._per_epoch = record.get("iterations_per_epoch", self._per_epoch)
            self._stages = record.get("stages", [])
        elif kind == "epoch_finished" and record.get("epoch", -1) >= self._epoch:
            self._epoch = record["epoch"] + 1
            self._spent.add(record)
            yield Point(time, self._epoch, self._iteration, self._spent.hours, self._spent.kwh, self._scalars(record))
        elif kind == "slice_written" and record.get("epoch", -1) >= self._pictured:
            self._pictured = record["epoch"] + 1
            yield Slice(time, self._pictured * self._per_epoch, record["file"])
        elif kind == "validation_finished" and record.get("checkpoint", "final") == "final":
            dice = {**(record.get("dice") or {}), "mean": record.get("mean")}
            yield Result(time, self._iteration, {name: float(v) for name, v in dice.items() if _is_number(v)})

    @property
    def _iteration(self) -> int:
        return self._epoch * self._per_epoch

    def _scalars(self, record: Record) -> dict[str, float]:
        scalars = {name: float(record[name]) for name in _SCALARS if _is_number(record.get(name))}
        for number, dice in enumerate(record.get("pseudo_dice") or (), 1):
            if _is_number(dice):
                scalars[f"pseudo_dice/class_{number}"] = float(dice)
        stage = record.get("stage", 0)
        scalars["stage"] = float(stage)
        if stage < len(self._stages):
            patch = self._stages[stage]["patch_size"]
            scalars["batch_size"] = float(self._stages[stage]["batch_size"])
            scalars["patch_size/voxels"] = float(math.prod(patch))
            scalars |= {f"patch_size/axis_{axis}": float(size) for axis, size in enumerate(patch)}
        return scalars


@dataclass
class _Spent:
    """Time and energy of all epochs so far."""

    hours: float = 0.0
    kwh: float | None = field(default=0.0)

    def add(self, record: Record) -> None:
        self.hours += (record.get("seconds") or 0.0) / 3600
        energy = record.get("energy_wh")
        self.kwh = None if self.kwh is None or energy is None else self.kwh + energy / 1000


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
