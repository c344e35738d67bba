"""Claims about pairs of runs and of schemes, and what weakens them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppgs.compare.results import Pair
from tests.helpers import result_folders as rf
from tests.helpers.result_folders import compared as run


@pytest.mark.parametrize(
    ("shift", "noise", "count", "outcome"),
    [
        (0.05, 0.01, 30, "better"),
        (-0.05, 0.01, 30, "worse"),
        (0.0, 0.001, 30, "not worse"),
        (-0.004, 0.08, 30, "undecided"),
        (0.05, 0.001, 5, "undecided"),
    ],
)
def test_verdicts(tmp_path: Path, shift: float, noise: float, count: int, outcome: str) -> None:
    base = {c: {"1": 0.6} for c in rf.random_cases(0, count)}
    draws = np.random.default_rng(5).normal(0, noise, count)
    other = {c: {"1": float(0.6 + shift + e - draws.mean())} for c, e in zip(base, draws, strict=True)}
    result = run(
        tmp_path, rf.write_model(tmp_path, rf.PLAIN, {"0": base}), rf.write_model(tmp_path, rf.OTHER, {"0": other})
    )
    verdict = result.pairs[0].verdict
    assert verdict.outcome == outcome
    assert result.pairs[0].non_inferior == (outcome in ("better", "not worse"))
    assert "nnUNetResEncUNetMPlans" in verdict.sentence
    assert any("another seed" in c for c in verdict.caveats)


def _pair(tmp_path: Path, base: rf.Cases, other: rf.Cases) -> Pair:
    given = rf.write_model(tmp_path, rf.PLAIN, {"0": base}), rf.write_model(tmp_path, rf.OTHER, {"0": other})
    return run(tmp_path, *given).pairs[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_test_of_ranks_against_the_interval_claims_nothing(tmp_path: Path, sign: int) -> None:
    base = {f"case_{i:03d}": {"1": 0.5} for i in range(300)}
    shifts = [-0.001 - i / 1e6 if i < 250 else 0.1 + i / 1e6 for i in range(300)]
    pair = _pair(tmp_path, base, {c: {"1": 0.5 + sign * s} for c, s in zip(base, shifts, strict=True)})
    low, high = pair.statistics.ci95
    assert pair.wilcoxon_p_holm < 0.05 and (low > 0 or high < 0)
    assert sign * pair.statistics.rank_biserial < 0 < sign * pair.statistics.mean_difference
    assert pair.verdict.outcome == ("not worse" if sign > 0 else "undecided")
    assert any("disagree" in c for c in pair.verdict.caveats)


@pytest.mark.parametrize(("count", "outcome"), [(5, "not worse"), (6, "better")])
def test_a_difference_needs_six_cases_that_differ(tmp_path: Path, count: int, outcome: str) -> None:
    base = {f"case_{i:03d}": {"1": 0.5} for i in range(20)}
    pair = _pair(tmp_path, base, {c: {"1": 0.5 + (i < count) * (0.01 + i / 1e3)} for i, c in enumerate(base)})
    assert pair.statistics.ci95[0] > 0
    # Of n signed ranks that are all positive.
    assert pair.statistics.wilcoxon_p == pytest.approx(2 / 2**count)
    assert pair.verdict.outcome == outcome
    assert any("disagree" in c for c in pair.verdict.caveats) == (count < 6)


def _inventing(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a baseline and a run that is better by 0.05 where there is a class, and invents it in `count` others."""
    base = {f"case_{i:03d}": {"1": 0.6 + i / 1e3} for i in range(20)}
    other = {c: {"1": d["1"] + 0.05 + i / 1e4} for i, (c, d) in enumerate(base.items())}
    for i in range(20):
        base[f"empty_{i:03d}"] = {"1": math.nan}
        other[f"empty_{i:03d}"] = {"1": 0.0 if i < count else math.nan}
    return base, other


@pytest.mark.parametrize(("count", "outcome"), [(10, "undecided"), (1, "better"), (0, "better")])
def test_classes_that_a_run_invents_forbid_a_claim_against_the_mean(tmp_path: Path, count: int, outcome: str) -> None:
    pair = _pair(tmp_path, *_inventing(count))
    assert pair.statistics.cases == 20 and pair.wilcoxon_p_holm < 0.05 and pair.statistics.ci95[0] > 0
    assert pair.verdict.outcome == outcome
    assert pair.non_inferior == (outcome == "better")
    assert sum(f"in {count} case" in c and "not in the test" in c for c in pair.verdict.caveats) == bool(count)
    assert not any("different classes" in c for c in pair.verdict.caveats)
    assert any("pooled mean Dice differs by −0.1" in c for c in pair.verdict.caveats) == (outcome == "undecided")


def test_no_scheme_is_better_against_the_mean_of_its_seeds(tmp_path: Path) -> None:
    base, other = _inventing(10)
    paths = [
        rf.write_own_run(tmp_path, schedule, {c: {"1": d["1"] + seed / 1e3} for c, d in cases.items()}, seed=seed).path
        for schedule, cases in (("constant", base), ("efficiency", other))
        for seed in (0, 1)
    ]
    (pair,) = run(tmp_path, *paths).tasks[0].seed_pairs
    assert pair.wilcoxon_p_holm < 0.05 and pair.ci95_seeds[0] > 0
    assert pair.verdict.outcome == "undecided"
    assert any("in 10 cases" in c and "some of the runs invent one" in c for c in pair.verdict.caveats)


def test_a_verdict_rests_on_the_folds_that_both_have(tmp_path: Path) -> None:
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(3)}
    a = rf.write_model(tmp_path, rf.PLAIN, {k: folds[k] for k in "01"})
    b = rf.write_model(tmp_path, rf.OTHER, {k: folds[k] for k in "12"})
    verdict = run(tmp_path, a, b).pairs[0].verdict
    assert "12 cases, 1 fold, one seed" in verdict.sentence
    assert any("different folds" in c for c in verdict.caveats)
    assert "one fold only (fold 1)" in verdict.caveats


def test_the_variance_between_seeds_is_that_of_a_scheme_with_several(tmp_path: Path) -> None:
    cases = {
        (s, n): rf.random_cases(n, shift=0.02 * n) for s, seeds in (("a", 1), ("b", 2), ("c", 1)) for n in range(seeds)
    }
    paths = [rf.write_own_run(tmp_path, s, c, seed=n).path for (s, n), c in cases.items()]
    task = run(tmp_path, *paths).tasks[0]
    of_b, of_c = (p.verdict.sentence for p in task.seed_pairs)
    moved = abs(np.diff([r.mean_dice for r in task.seed_groups[1].runs])[0])
    assert moved > 0.01 and f"seeds alone move b's mean Dice by {moved:.4f}" in of_b
    assert "seeds alone" not in of_c
