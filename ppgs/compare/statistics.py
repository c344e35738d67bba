"""Statistics on arrays with NumPy and SciPy: pooled Dice, paired differences, ranks. Knows nothing of files.

Dice is a fraction (0 to 1); differences are run minus baseline, in the same unit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ppgs.compare.model import CaseScores

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 9_999
# Doubles per block of bootstrap samples: 32 MiB.
_BLOCK = 4_194_304


def pooled_dice(cases: Iterable[CaseScores], classes: Sequence[str]) -> dict[str, float]:
    """Return the mean Dice per class over all cases, NaN ignored; NaN for a class that no case has."""
    cases = list(cases)
    return {key: nan_mean([c.dice.get(key, math.nan) for c in cases]) for key in classes}


def case_means(cases: Iterable[CaseScores], classes: Sequence[str]) -> dict[str, float]:
    """Return each case's mean over its foreground classes, NaN ignored; cases without a defined class are left out.

    A case that several folds validated counts with the mean of them.
    """
    values: dict[str, list[float]] = {}
    for scores in cases:
        mean = nan_mean([scores.dice.get(key, math.nan) for key in classes])
        if not math.isnan(mean):
            values.setdefault(scores.case, []).append(mean)
    return {case: math.fsum(v) / len(v) for case, v in values.items()}


def nan_mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return math.fsum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Paired:
    """Paired differences of one run and the baseline over common cases.

    `rank_biserial` is the matched-pairs rank-biserial correlation (-1 to 1: the share of rank sums for the run minus
    that against it), `cohen_dz` the mean difference in standard deviations of the differences (NaN where they have
    none). `non_inferiority_p` is of the one-sided t-test against a mean difference of -margin (NaN for fewer than two
    cases).
    """

    cases: int
    mean_difference: float
    median_difference: float
    ci95: tuple[float, float]
    wilcoxon_p: float
    rank_biserial: float
    cohen_dz: float
    wins: int
    losses: int
    ties: int
    non_inferiority_p: float


def paired(differences: Sequence[float], margin: float, seed: int = 0) -> Paired:
    """Compute all paired statistics of the differences (run minus baseline), at least one."""
    d = np.asarray(differences, dtype=np.float64)
    wins, losses = int(np.sum(d > 0)), int(np.sum(d < 0))
    spread = float(np.std(d, ddof=1)) if d.size > 1 and not _is_constant(d) else math.nan
    return Paired(
        cases=d.size,
        mean_difference=float(np.mean(d)),
        median_difference=float(np.median(d)),
        ci95=bootstrap_mean(d, seed),
        wilcoxon_p=wilcoxon(d),
        rank_biserial=rank_biserial(d),
        cohen_dz=float(np.mean(d)) / spread if spread > 0 else math.nan,
        wins=wins,
        losses=losses,
        ties=int(d.size) - wins - losses,
        non_inferiority_p=_above(d, -margin),
    )


def _is_constant(values: Floats) -> bool:
    """Return whether values differ by rounding at most."""
    return bool(np.ptp(values) <= 1e-12)


def bootstrap_mean(values: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (BCa) of the mean; deterministic for the same values and seed.

    Values that do not vary have the interval of zero width that resampling them gives. Where the acceleration cannot
    be computed, as of values near the smallest numbers, the interval is that of the resamples' percentiles.
    """
    if values.size < 2 or _is_constant(values):
        mean = float(np.mean(values))
        return mean, mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, _BLOCK // values.size),
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = found.confidence_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = _percentiles(found.bootstrap_distribution)
    return float(low), float(high)


def _percentiles(means: Floats) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_seeds(run: Floats, baseline: Floats, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % percentile interval of two schemes' mean difference, resampling seeds and cases.

    The arrays hold Dice by (seed, case); cases are paired, seeds are not.
    """
    rng = np.random.default_rng(seed)
    cases = run.shape[1]
    means = np.empty(resamples)
    for index in range(resamples):
        chosen = rng.integers(0, cases, cases)
        a = run[rng.integers(0, run.shape[0], run.shape[0])].mean(axis=0)
        b = baseline[rng.integers(0, baseline.shape[0], baseline.shape[0])].mean(axis=0)
        means[index] = (a - b)[chosen].mean()
    return _percentiles(means)


def wilcoxon(differences: Floats) -> float:
    """Return the two-sided p of the Wilcoxon signed-rank test, zeros dropped; 1 if nothing differs."""
    # SciPy drops zeros, too, but then takes the normal approximation, which is too bold for few cases.
    moved = differences[differences != 0]
    if moved.size == 0:
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(moved).pvalue)


def rank_biserial(differences: Floats) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014); 0 if nothing differs."""
    moved = differences[differences != 0]
    if moved.size == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())


def _above(differences: Floats, bound: float) -> float:
    if differences.size < 2:
        return math.nan
    if _is_constant(differences):
        return 0.0 if differences[0] > bound else 1.0
    return float(stats.ttest_1samp(differences, bound, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down adjustment, keeping the order (Holm 1979); SciPy has none."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Ranking:
    """Mean ranks (1 is best) over tasks, Friedman's p (NaN for fewer than three trainings) and the critical
    difference of mean ranks at 5 % (Nemenyi, as Demšar 2006 uses it)."""

    mean_ranks: dict[str, float]
    friedman_p: float
    critical_difference: float
    tasks: int


def rank(scores: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank trainings by their Dice on every task; `scores` has one value per task, in the same order."""
    names = list(scores)
    table = np.asarray([scores[name] for name in names], dtype=np.float64)
    count, tasks = table.shape
    ranks = stats.rankdata(-table, axis=0)
    friedman = math.nan
    if count > 2 and tasks > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            friedman = float(stats.friedmanchisquare(*table).pvalue)
    critical = float(stats.studentized_range.ppf(CONFIDENCE, count, np.inf) / math.sqrt(2))
    return Ranking(
        mean_ranks={name: float(r) for name, r in zip(names, ranks.mean(axis=1), strict=True)},
        friedman_p=friedman,
        critical_difference=critical * math.sqrt(count * (count + 1) / (6 * tasks)),
        tasks=tasks,
    )


def finite(value: Any) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if value is not None and math.isfinite(value) else None
