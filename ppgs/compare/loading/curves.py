"""Convergence curves: the Dice that a training reports of itself after every epoch, against epochs, hours and kWh.

That Dice is nnU-Net's pseudo Dice: of validation patches, not of whole images, smoothed over epochs (`ema_fg_dice`).
"""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

from ppgs.compare.model import Curve
from ppgs.runs.events import Record

# nnU-Net's own smoothing of the pseudo Dice.
_KEEP = 0.9


def from_epochs(finished: dict[int, Record]) -> Curve | None:
    """Return the curve of our event log's `epoch_finished` records by epoch; None if there are none."""
    if not finished:
        return None
    epochs = sorted(finished)
    records = [finished[epoch] for epoch in epochs]
    stages = [record.get("stage", 0) for record in records]
    energies = [record.get("energy_wh") for record in records]
    known = all(isinstance(e, (int, float)) for e in energies)
    return Curve(
        epochs=tuple(epochs),
        dice=tuple(_number(r.get("ema_dice")) for r in records),
        seconds=_running([_number(r.get("seconds")) for r in records]),
        kwh=_running([_number(e) / 1000 for e in energies]) if known else (),
        stage_starts=tuple(e for e, s, before in zip(epochs[1:], stages[1:], stages, strict=False) if s != before),
    )


def read_progress(path: Path) -> Curve | None:
    """Read the curve from a `progress.csv` with nnU-Net's logger columns; None without a usable file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        dice = [_number(row.get("ema_fg_dice")) for row in rows]
        spent = [float(row["epoch_end_timestamps"]) - float(row["epoch_start_timestamps"]) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
        return None
    if not rows:
        return None
    return Curve(tuple(range(len(rows))), tuple(dice), _running(spent))


_EPOCH = re.compile(r"Epoch (\d+)\s*$")
_TIME = re.compile(r"Epoch time: ([\d.]+) s")
_PSEUDO = re.compile(r"Pseudo dice \[(.*)\]")
_VALUE = re.compile(r"(?:np\.float\d+\()?(nan|-?\d+\.?\d*(?:e-?\d+)?)\)?")


def read_training_logs(folder: Path) -> Curve | None:
    """Read the curve from nnU-Net's `training_log_*.txt`, joining the logs of a resumed training; None without any.

    An epoch that a later part trains again counts as that part recorded it.
    """
    spent: dict[int, float] = {}
    pseudo: dict[int, float] = {}
    # nnU-Net writes months and days without leading zeros.
    for path in sorted(folder.glob("training_log_*.txt"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)]):
        epoch: int | None = None
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            if match := _EPOCH.search(line):
                epoch = int(match[1])
            elif epoch is not None and (match := _PSEUDO.search(line)):
                values = [float(v) for v in _VALUE.findall(match[1])]
                known = [v for v in values if not math.isnan(v)]
                pseudo[epoch] = math.fsum(known) / len(known) if known else math.nan
            elif epoch is not None and (match := _TIME.search(line)):
                spent[epoch] = float(match[1])
    epochs = sorted(spent)
    if not epochs:
        return None
    smooth: list[float] = []
    for epoch in epochs:
        value = pseudo.get(epoch, math.nan)
        smooth.append(_KEEP * smooth[-1] + (1 - _KEEP) * value if smooth and not math.isnan(smooth[-1]) else value)
    return Curve(tuple(epochs), tuple(smooth), _running([spent[e] for e in epochs]))


def _number(value: object) -> float:
    try:
        return float(value) if value is not None else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _running(values: list[float]) -> tuple[float, ...]:
    total, sums = 0.0, []
    for value in values:
        total += 0.0 if math.isnan(value) else value
        sums.append(total)
    return tuple(sums)
