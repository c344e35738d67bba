"""Energy and CO2 of a training, from the `emissions.csv` that CodeCarbon leaves in the fold's folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ppgs.errors import BadInput

EMISSIONS = "emissions.csv"


@dataclass(frozen=True)
class Emissions:
    """Totals of an `emissions.csv`, which has one row per process; a resumed training has several."""

    seconds: float
    energy_kwh: float
    co2_kg: float
    gpu_kwh: float | None
    cpu_kwh: float | None
    ram_kwh: float | None
    country: str | None
    gpus: int | None
    gpu_model: str | None


def read_emissions(path: Path) -> Emissions | None:
    """Add up CodeCarbon's last record of every `run_id`; None without a file.

    Raises `BadInput` naming the file and column where it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise BadInput(f"the energy record cannot be read: {problem}", path) from None
    # A tracker that is flushed repeats its row with the total so far.
    last = {row.get("run_id") or str(number): row for number, row in enumerate(rows)}
    if not last:
        return None
    try:
        return Emissions(
            seconds=_total(last.values(), "duration"),
            energy_kwh=_total(last.values(), "energy_consumed"),
            co2_kg=_total(last.values(), "emissions"),
            gpu_kwh=_total_or_none(last.values(), "gpu_energy"),
            cpu_kwh=_total_or_none(last.values(), "cpu_energy"),
            ram_kwh=_total_or_none(last.values(), "ram_energy"),
            country=next((row["country_iso_code"] for row in last.values() if row.get("country_iso_code")), None),
            gpus=next((int(float(row["gpu_count"])) for row in last.values() if row.get("gpu_count")), None),
            gpu_model=next((row["gpu_model"] for row in last.values() if row.get("gpu_model")), None),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise BadInput(f"the energy record is damaged: {problem}", path, "is it CodeCarbon's emissions.csv?") from None


def _total(rows: Iterable[dict[str, str]], column: str) -> float:
    total = math.fsum(float(row[column]) for row in rows)
    if not math.isfinite(total) or total < 0:
        raise ValueError(f"{column} adds up to {total}")
    return total


def _total_or_none(rows: Iterable[dict[str, str]], column: str) -> float | None:
    try:
        return _total(rows, column)
    except (KeyError, TypeError, ValueError):
        return None
