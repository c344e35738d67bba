"""The verdict in words: which claims the figures support, and what weakens them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ppgs.compare.analysis.run_cost import common_folds
from ppgs.compare.model import FOLD_ALL, Run
from ppgs.compare.results import Outcome, RunResult
from ppgs.compare.statistics import Paired
from ppgs.formatting import counted

ALPHA = 0.05
# With fewer cases that differ a two-sided signed-rank test cannot reach 5 %.
FEWEST_CASES = 6


def signed(value: float, digits: int = 4) -> str:
    """Format a difference with its sign (a real minus); one that rounds to zero has none."""
    if round(value, digits) == 0:
        return f"{0:.{digits}f}"
    return f"{value:+.{digits}f}".replace("-", "−")


def p_text(value: float) -> str:
    """Format a p-value as in papers."""
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def decide(statistics: Paired, p_holm: float, margin: float, pooled: float) -> Outcome:
    """Choose the claim: a difference needs the corrected test and the interval to agree on its direction; else
    non-inferiority needs the whole interval above -margin.

    `pooled` is the difference of the pooled mean Dice; nothing is claimed against it.
    """
    direction = _by_interval(statistics)
    if direction and direction == _by_ranks(statistics, p_holm) and direction * pooled >= 0:
        return "better" if direction > 0 else "worse"
    return "not worse" if non_inferior(statistics, margin, pooled) else "undecided"


def _by_interval(statistics: Paired) -> int:
    """Return the side of zero that the whole interval is on: 1, -1, or 0 for neither."""
    low, high = statistics.ci95
    return (low > 0) - (high < 0)


def _by_ranks(statistics: Paired, p_holm: float) -> int:
    """Return the direction that the corrected test of ranks claims: 1, -1, or 0 for none."""
    if statistics.wins + statistics.losses < FEWEST_CASES or p_holm >= ALPHA:
        return 0
    return (statistics.rank_biserial > 0) - (statistics.rank_biserial < 0)


def non_inferior(statistics: Paired, margin: float, pooled: float) -> bool:
    """Return whether interval and pooled difference are above -margin, on enough cases."""
    return statistics.cases >= FEWEST_CASES and min(statistics.ci95[0], pooled) > -margin


def sentence(
    outcome: Outcome,
    run: str,
    baseline: str,
    statistics: Paired,
    p_holm: float,
    margin: float,
    basis: str,
) -> str:
    """Write one plain sentence; `basis` names its evidence (cases, folds, seeds)."""
    low, high = statistics.ci95
    figures = (
        f"{signed(statistics.mean_difference)} Dice (95 % CI {signed(low)} to {signed(high)}, "
        f"Holm-corrected p {p_text(p_holm) if p_holm < 0.001 else '= ' + p_text(p_holm)}; {basis})"
    )
    if outcome == "better":
        small = f", though by less than {margin:g}" if high < margin else ""
        return f"{run} is better than {baseline}{small}: {figures}."
    if outcome == "worse":
        small = f", though by less than {margin:g}" if low > -margin else ""
        return f"{run} is worse than {baseline}{small}: {figures}."
    if outcome == "not worse":
        same = f"equivalent to {baseline} within ±{margin:g}" if high < margin else f"not worse than {baseline}"
        return f"{run} is {same}{'' if high < margin else f' by {margin:g} or more'}: {figures}."
    if statistics.cases < FEWEST_CASES:
        return f"Too few cases to tell {run} from {baseline}: {figures}."
    return f"It is not known whether {run} is better or worse than {baseline}: {figures}."


def caveats(
    runs: Sequence[RunResult],
    baselines: Sequence[RunResult],
    statistics: Paired,
    p_holm: float,
    margin: float,
    pooled: float,
) -> tuple[str, ...]:
    """Return what weakens the verdict on a run and the baseline, or on their seeds."""
    found = []
    run, baseline = runs[0].run, baselines[0].run
    if statistics.cases < FEWEST_CASES:
        found.append(f"with {statistics.cases} common cases the test cannot reach p < 0.05")
    else:
        if _by_ranks(statistics, p_holm) != _by_interval(statistics):
            found.append(
                "the corrected test of ranks and the interval of the mean disagree, so no difference is claimed"
            )
        if _by_interval(statistics) * pooled < 0 or statistics.ci95[0] > -margin >= pooled:
            found.append(
                f"the pooled mean Dice differs by {signed(pooled)}, unlike the mean over cases; nothing is claimed "
                "against it"
            )
    if min(len(runs), len(baselines)) < 2:
        found.append(
            "one training per fold: another seed may differ by as much; the interval covers cases, not retraining"
        )
    if run.fold_names != baseline.fold_names:
        found.append("the runs have different folds; only common cases are tested")
    folds = _shared_folds(run, baseline)
    if len(folds) == 1 and folds != [FOLD_ALL]:
        found.append(f"one fold only (fold {folds[0]})")
    if run.data_changes(baseline):
        found.append("the runs were trained on different data: cases were changed, added or removed in between")
    if run.on_training_cases or baseline.on_training_cases:
        found.append("fold_all is validated on its own training cases: not a measure of generalisation")
    invented = _invented([*runs, *baselines])
    tested = set.intersection(*(set(result.per_case) for result in (*runs, *baselines)))
    who = "one run invents" if len(runs) == len(baselines) == 1 else "some of the runs invent"
    if mixed := len(invented & tested):
        found.append(
            f"in {counted(mixed, 'case')} a class is absent from the reference and only {who} it, so the case means "
            "average different classes"
        )
    if untested := len(invented - tested):
        found.append(
            f"in {counted(untested, 'case')} without any class only {who} one; such cases are not in the test, but "
            "count as 0 in the mean Dice"
        )
    return tuple(found)


def _invented(results: Sequence[RunResult]) -> set[str]:
    """Return the common cases with a class that is defined for only some of the results.

    Its Dice is undefined unless reference or prediction have it, so the others predict it where it is absent.
    """
    defined, undefined = [], []
    for result in results:
        known = {(c.case, key) for c in result.run.cases for key, dice in c.dice.items() if not math.isnan(dice)}
        defined.append(known)
        undefined.append({(c.case, key) for c in result.run.cases for key in c.dice} - known)
    of_all = set.intersection(*(a | b for a, b in zip(defined, undefined, strict=True)))
    of_some = set[tuple[str, str]]().union(*defined) & set[tuple[str, str]]().union(*undefined)
    return {case for case, _ in of_all & of_some}


def _shared_folds(run: Run, baseline: Run) -> list[str]:
    return [fold.name for fold, _ in common_folds(run, baseline) if fold.name]


def basis(runs: Sequence[RunResult], baselines: Sequence[RunResult], statistics: Paired) -> str:
    """Describe the evidence of a verdict: `281 cases, 5 folds, one seed`."""
    parts = [counted(statistics.cases, "case")]
    folds, seeds = _shared_folds(runs[0].run, baselines[0].run), min(len(runs), len(baselines))
    if folds:
        parts.append("fold_all" if folds == [FOLD_ALL] else counted(len(folds), "fold"))
    parts.append("one seed" if seeds < 2 else f"{seeds} seeds")
    return ", ".join(parts)
