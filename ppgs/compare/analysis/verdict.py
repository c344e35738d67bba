"""The verdict in words: which claims the figures support, and what weakens them."""

from __future__ import annotations

import math

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


def decide(statistics: Paired, p_holm: float, margin: float) -> Outcome:
    """Choose the claim: a difference needs the corrected test and the interval to agree on its direction; else
    non-inferiority needs the whole interval above -margin."""
    direction = _by_interval(statistics)
    if direction and direction == _by_ranks(statistics, p_holm):
        return "better" if direction > 0 else "worse"
    return "not worse" if non_inferior(statistics, margin) else "undecided"


def _by_interval(statistics: Paired) -> int:
    """Return the side of zero that the whole interval is on: 1, -1, or 0 for neither."""
    low, high = statistics.ci95
    return (low > 0) - (high < 0)


def _by_ranks(statistics: Paired, p_holm: float) -> int:
    """Return the direction that the corrected test of ranks claims: 1, -1, or 0 for none."""
    if statistics.wins + statistics.losses < FEWEST_CASES or p_holm >= ALPHA:
        return 0
    return (statistics.rank_biserial > 0) - (statistics.rank_biserial < 0)


def non_inferior(statistics: Paired, margin: float) -> bool:
    """Return whether the whole interval of the mean difference is above -margin, on enough cases."""
    return statistics.cases >= FEWEST_CASES and statistics.ci95[0] > -margin


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


def caveats(run: RunResult, baseline: RunResult, statistics: Paired, p_holm: float, seeds: int = 1) -> tuple[str, ...]:
    """Return what weakens the verdict on one pair."""
    found = []
    if statistics.cases < FEWEST_CASES:
        found.append(f"with {statistics.cases} common cases the test cannot reach p < 0.05")
    elif _by_ranks(statistics, p_holm) != _by_interval(statistics):
        found.append("the corrected test of ranks and the interval of the mean disagree, so no difference is claimed")
    if seeds < 2:
        found.append(
            "one training per fold: another seed may differ by as much; the interval covers cases, not retraining"
        )
    folds = {run.run.fold_names, baseline.run.fold_names}
    if len(folds) > 1:
        found.append("the runs have different folds; only common cases are tested")
    elif len(run.run.fold_names) == 1 and not run.run.on_training_cases:
        found.append(f"one fold only (fold {run.run.fold_names[0]})")
    if run.run.data_changes(baseline.run):
        found.append("the runs were trained on different data: cases were changed, added or removed in between")
    if run.run.on_training_cases or baseline.run.on_training_cases:
        found.append("fold_all is validated on its own training cases: not a measure of generalisation")
    differing = _differently_defined(run, baseline)
    if differing:
        found.append(
            f"in {counted(differing, 'case')} a class is absent from the reference and only one run "
            "invents it, so the two case means average different classes"
        )
    return tuple(found)


def _differently_defined(run: RunResult, baseline: RunResult) -> int:
    other = {c.case: c for c in baseline.run.cases}
    return sum(
        1
        for c in run.run.cases
        if c.case in other
        and any(
            math.isnan(value) != math.isnan(other[c.case].dice[key])
            for key, value in c.dice.items()
            if key in other[c.case].dice
        )
    )


def basis(run: RunResult, statistics: Paired, seeds: int | None = None) -> str:
    """Describe the evidence of a verdict: `281 cases, 5 folds, one seed`."""
    parts = [counted(statistics.cases, "case")]
    folds = run.run.fold_names
    if run.run.on_training_cases:
        parts.append("fold_all")
    elif folds:
        parts.append(counted(len(folds), "fold"))
    parts.append("one seed" if (seeds or 1) < 2 else f"{seeds} seeds")
    return ", ".join(parts)
