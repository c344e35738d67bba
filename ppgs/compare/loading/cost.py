"""Sources of a fold's training time, and the carbon intensity of a country's electricity."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ppgs.compare.model import FoldCost
from ppgs.errors import BadInput, nearest

# In the order in which they are trusted: the tracker has the start and the end of the process, the others the epochs.
SOURCES = ("emissions", "events", "progress", "log")
SOURCE_NAMES = {
    "emissions": "CodeCarbon (whole process)",
    "events": "epochs of the event log",
    "progress": "epochs of progress.csv",
    "log": "epochs of the training log",
}


@lru_cache
def _intensities() -> dict[str, float]:
    """Return grams of CO2eq per kWh by ISO 3166 alpha-3 country, from CodeCarbon's table (Our World in Data, Ember)."""
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
    """Return kg CO2eq per kWh of a country's electricity; raises `BadInput` for an unknown country."""
    known = _intensities()
    try:
        return known[country.upper()] / 1000
    except KeyError:
        what = f"no carbon intensity is known for '{country}'"
        if not known:
            raise BadInput(what, "--country", "install codecarbon, or give --carbon-intensity in g/kWh") from None
        raise BadInput(what, "--country", f"use an ISO code such as DEU; {nearest(country.upper(), known)}") from None


def shared_source(costs: Iterable[Iterable[FoldCost]]) -> str | None:
    """Return the most trusted source of seconds that all folds of all runs have, so that times are comparable."""
    folds = [cost for run in costs for cost in run]
    return next((s for s in SOURCES if folds and all(s in cost.seconds for cost in folds)), None)


def own_source(folds: Iterable[FoldCost]) -> str | None:
    """Return the most trusted source that every fold of one run has."""
    return shared_source([list(folds)])
