"""Costs of folds into costs of runs, ratios to the baseline, and when a run reached the baseline's Dice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ppgs.compare.model import Fold, FoldCost, Run
from ppgs.compare.results import ReachedBaseline, RunCost
from ppgs.compare.statistics import finite, nan_mean


def total(values: Sequence[float | None]) -> float | None:
    """Return the sum, or None unless every fold has a value: a partial sum would look cheap."""
    known = [v for v in values if v is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def co2_of(cost: FoldCost, intensity: float | None) -> float | None:
    if intensity is None:
        return cost.co2_kg
    return cost.energy_kwh * intensity if cost.energy_kwh is not None else None


def total_cost(folds: Sequence[FoldCost], source: str | None, intensity: float | None, basis: str | None) -> RunCost:
    """Return the cost of a run.

    `source` is that of the seconds, `intensity` the carbon intensity in kg CO2eq per kWh (None: as recorded), `basis`
    its name.
    """
    seconds = [c.seconds.get(source) if source else None for c in folds]
    gpus = [c.gpus if s is not None else None for c, s in zip(folds, seconds, strict=True)]
    gpu_seconds = total([s * n if s is not None and n else None for s, n in zip(seconds, gpus, strict=True)])
    co2 = total([co2_of(c, intensity) for c in folds])
    countries = sorted({c.country for c in folds if c.country})
    memory = [c.peak_memory_bytes for c in folds if c.peak_memory_bytes is not None]
    return RunCost(
        seconds=total(seconds),
        source=source,
        gpu_hours=gpu_seconds / 3600 if gpu_seconds is not None else None,
        energy_kwh=total([c.energy_kwh for c in folds]),
        gpu_kwh=total([c.gpu_kwh for c in folds]),
        co2_kg=co2,
        co2_basis=None if co2 is None else basis or "/".join(countries) or None,
        flops=total([c.flops for c in folds]),
        peak_memory_bytes=max(memory) if memory else None,
    )


def common_folds(run: Run, baseline: Run) -> list[tuple[Fold, Fold]]:
    theirs = {f.name: f for f in baseline.folds}
    return [(f, theirs[f.name]) for f in run.folds if f.name in theirs]


def ratio_on(folds: Sequence[tuple[Fold, Fold]], figure: Callable[[FoldCost], float | None]) -> float | None:
    """Return the ratio of sums over the common folds; None unless both runs have the figure on all of them."""
    mine, theirs = (total([figure(pair[side].cost) for pair in folds]) for side in (0, 1))
    return quotient(mine, theirs)


def quotient(mine: float | None, theirs: float | None) -> float | None:
    return finite(mine / theirs) if mine is not None and theirs else None


def reached_baseline(folds: Sequence[tuple[Fold, Fold]]) -> ReachedBaseline | None:
    """Return when the run's pseudo Dice first reached the baseline's final one, over the folds."""
    seconds, shares, compared = [], [], 0
    for mine, theirs in folds:
        if mine.curve is None or theirs.curve is None or math.isnan(theirs.curve.final):
            continue
        compared += 1
        index = mine.curve.first_reaching(theirs.curve.final)
        if index is not None:
            seconds.append(mine.curve.seconds[index])
            shares.append(seconds[-1] / theirs.curve.seconds[-1] if theirs.curve.seconds[-1] else math.nan)
    if not compared:
        return None
    return ReachedBaseline(
        folds=compared,
        reached=len(seconds),
        seconds=nan_mean(seconds) if seconds else None,
        share_of_baseline=finite(nan_mean(shares)) if shares else None,
    )
