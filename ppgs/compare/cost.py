"""What a fold cost: seconds, energy, CO2, memory, FLOPs, as far as its files tell.

Sources: CodeCarbon's `emissions.csv`, the epochs of our event log, nnU-Net's `progress.csv` and training logs.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ppgs.errors import BadInput, nearest

EMISSIONS = "emissions.csv"
# In the order in which they are trusted: the tracker has the start and the end of the process, the others the epochs.
SOURCES = ("emissions", "events", "progress", "log")
SOURCE_NAMES = {
    "emissions": "CodeCarbon (whole process)",
    "events": "epochs of the event log",
    "progress": "epochs of progress.csv",
    "log": "epochs of the training log",
}


@dataclass(frozen=True)
class FoldCost:
    """Cost of training one fold; None where nothing tells.

    `seconds` holds the training time by source. Energies are in kWh, CO2 in kg CO2eq, memory in bytes, FLOPs those of
    all training iterations.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    energy_kwh: float | None = None
    gpu_kwh: float | None = None
    cpu_kwh: float | None = None
    ram_kwh: float | None = None
    co2_kg: float | None = None
    country: str | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    peak_memory_bytes: int | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Emissions:
    """The sum over an `emissions.csv`: one row a process, a resumed training has several."""

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
    """Sum of CodeCarbon's records, the last one of every `run_id`; None without a file.

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


@lru_cache
def _intensities() -> dict[str, float]:
    """Grams of CO2eq per kWh by ISO 3166 alpha-3 country, from CodeCarbon's table (Our World in Data, Ember)."""
    spec = find_spec("codecarbon")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        table = Path(folder) / "data" / "private_infra" / "global_energy_mix.json"
        try:
            raw = json.loads(table.read_bytes())
            return {str(code): float(row["carbon_intensity"]) for code, row in raw.items() if "carbon_intensity" in row}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def carbon_intensity(country: str) -> float:
    """kg CO2eq per kWh of a country's electricity; raises `BadInput` for a country that is not known."""
    known = _intensities()
    try:
        return known[country.upper()] / 1000
    except KeyError:
        what = f"no carbon intensity is known for '{country}'"
        if not known:
            raise BadInput(what, "--country", "install codecarbon, or give --carbon-intensity in g/kWh") from None
        raise BadInput(what, "--country", f"use an ISO code such as DEU; {nearest(country.upper(), known)}") from None


def shared_source(costs: Iterable[Iterable[FoldCost]]) -> str | None:
    """The most trusted source of seconds that every fold of every run has, so that like is compared with like."""
    folds = [cost for run in costs for cost in run]
    return next((s for s in SOURCES if folds and all(s in cost.seconds for cost in folds)), None)


def own_source(folds: Iterable[FoldCost]) -> str | None:
    """The most trusted source that every fold of one run has."""
    return shared_source([list(folds)])
