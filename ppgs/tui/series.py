"""Measurements of every epoch in columns: 100,000 epochs take some 12 MB."""

from __future__ import annotations

import csv
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TextIO

import numpy as np

from ppgs.runs.events import Record

COLUMNS = (
    "stage",
    "train_loss",
    "val_loss",
    "ema_dice",
    "learning_rate",
    "seconds",
    "train_seconds",
    "data_wait_seconds",
    "validation_seconds",
    "checkpoint_seconds",
    "peak_memory_bytes",
    "energy_wh",
    "train_peak_memory_bytes",
)
_MOST_CLASSES = 256
_LAST_EPOCH = 10**8


class Series:
    """Columns over epochs in rising order; missing values are NaN."""

    def __init__(self) -> None:
        self.epochs: array[int] = array("q")
        self.columns: dict[str, array[float]] = {name: array("d") for name in COLUMNS}
        self.classes: list[array[float]] = []
        self.version = 0
        self._totals: dict[str, tuple[int, float | None]] = {}

    def __len__(self) -> int:
        return len(self.epochs)

    def append(self, record: Record) -> bool:
        """Add a finished epoch; an epoch that is trained again replaces the later ones."""
        epoch = record.get("epoch")
        if not isinstance(epoch, int) or not 0 <= epoch < _LAST_EPOCH:
            return False
        if self.epochs and epoch <= self.epochs[-1]:
            self.forget_from(epoch)
        self.version += 1
        for name, column in self.columns.items():
            value = record.get(name)
            column.append(value if type(value) is float else _float(value))
        given = record.get("pseudo_dice")
        dice = list(given)[:_MOST_CLASSES] if isinstance(given, (list, tuple)) else []
        while len(self.classes) < len(dice):
            self.classes.append(array("d", [math.nan]) * len(self.epochs))
        for index, one in enumerate(self.classes):
            one.append(_float(dice[index]) if index < len(dice) else math.nan)
        self.epochs.append(epoch)
        return True

    def extend(self, records: Sequence[Record]) -> int:
        """Append many records, column by column if they are regular; return how many were invalid."""
        epochs: list[Any] = [record.get("epoch") for record in records]
        dice: list[Any] = [record.get("pseudo_dice") for record in records]
        classes = len(dice[0]) if dice and isinstance(dice[0], list) else -1
        usual = (
            bool(records)
            and len(self.classes) in ((classes,) if self.epochs else (0, classes))
            and classes <= _MOST_CLASSES
            and all(type(one) is list and len(one) == classes for one in dice)
            and all(type(one) is int for one in epochs)
            and all(a < b for a, b in pairwise([self.epochs[-1] if self.epochs else -1, *epochs]))
            and epochs[-1] < _LAST_EPOCH
        )
        if not usual:
            return sum(not self.append(record) for record in records)
        self.version += 1
        self.classes = self.classes or [array("d") for _ in range(classes)]
        for name, column in self.columns.items():
            column.extend(v if type(v := record.get(name)) is float else _float(v) for record in records)
        for one, values in zip(self.classes, zip(*dice, strict=True), strict=True):
            one.extend(map(_float, values))
        self.epochs.extend(epochs)
        return 0

    def forget_from(self, epoch: int) -> None:
        """Drop this epoch and all later ones."""
        keep = bisect_left(self.epochs, epoch)
        if keep < len(self.epochs):
            self.version += 1
            del self.epochs[keep:]
            for column in (*self.columns.values(), *self.classes):
                del column[keep:]

    def last(self, name: str) -> float | None:
        """Return the newest value of a column, None if there is none."""
        column = self.columns[name]
        return column[-1] if column and math.isfinite(column[-1]) else None

    def of_stage(self, stage: int) -> range:
        """Return the positions of a stage's epochs; stages follow each other, so their column is sorted."""
        column = self.columns["stage"]
        first = bisect_left(column, stage)
        return range(first, bisect_left(column, stage + 1, lo=first))

    def newest(self, name: str, where: range, most: int) -> list[float]:
        """Return the last known values there, at most `most`."""
        return [v for v in self.columns[name][max(where.start, where.stop - most) : where.stop] if math.isfinite(v)]

    def mean(self, name: str, where: range) -> float | None:
        values = self._known(name, where)
        return float(values.mean()) if len(values) else None

    def most(self, name: str, where: range) -> float | None:
        values = self._known(name, where)
        return float(values.max()) if len(values) else None

    def total(self, name: str) -> float | None:
        """Return the sum of a column, None if nothing was measured."""
        version, total = self._totals.get(name, (-1, None))
        if version != self.version:
            values = self._known(name, range(len(self)))
            total = float(values.sum()) if len(values) else None
            self._totals[name] = self.version, total
        return total

    def _known(self, name: str, where: range) -> Any:
        values = np.array(self.columns[name][where.start : where.stop])
        return values[np.isfinite(values)]

    def write_csv(self, file: TextIO, class_names: list[str]) -> None:
        """Write one row per epoch (from 1), with empty cells for missing values."""
        names = [*class_names, *(str(i + 1) for i in range(len(class_names), len(self.classes)))]
        writer = csv.writer(file)
        writer.writerow(["epoch", *COLUMNS, *(f"pseudo_dice_{n}" for n in names[: len(self.classes)])])
        writer.writerows(self._rows())

    def _rows(self) -> Iterator[list[Any]]:
        for at, epoch in enumerate(self.epochs):
            stage, *values = (column[at] for column in (*self.columns.values(), *self.classes))
            cells = ["" if math.isnan(v) else repr(v) for v in values]
            yield [epoch + 1, "" if math.isnan(stage) else int(stage) + 1, *cells]


def _float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return math.nan
