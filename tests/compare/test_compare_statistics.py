"""Statistics against independent computations with NumPy and SciPy, and their properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ppgs.compare import statistics
from ppgs.compare.model import CaseScores

rng = np.random.default_rng(7)
SAMPLES = {
    "normal": rng.normal(0.01, 0.03, 60),
    "few": rng.normal(-0.02, 0.05, 9),
    "skewed": rng.exponential(0.02, 40) - 0.015,
    "with ties and zeros": np.repeat([0.0, 0.01, -0.01, 0.02, 0.0], 6),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_paired_agrees_with_scipy(name: str) -> None:
    d = SAMPLES[name]
    found = statistics.paired(list(d), margin=0.005)
    assert found.cases == d.size
    assert found.mean_difference == pytest.approx(np.mean(d))
    assert found.median_difference == pytest.approx(np.median(d))
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(d).pvalue)
    assert found.cohen_dz == pytest.approx(np.mean(d) / np.std(d, ddof=1))
    t = (np.mean(d) + 0.005) / (np.std(d, ddof=1) / math.sqrt(d.size))
    assert found.non_inferiority_p == pytest.approx(stats.t.sf(t, d.size - 1))
    assert (found.wins, found.losses, found.ties) == (np.sum(d > 0), np.sum(d < 0), np.sum(d == 0))


@pytest.mark.parametrize("name", SAMPLES)
def test_rank_biserial_is_the_balance_of_wilcoxons_rank_sums(name: str) -> None:
    d = SAMPLES[name][SAMPLES[name] != 0]
    ranks = stats.rankdata(np.abs(d))
    favourable, total = ranks[d > 0].sum(), d.size * (d.size + 1) / 2
    assert statistics.rank_biserial(SAMPLES[name]) == pytest.approx(2 * favourable / total - 1)


@pytest.mark.parametrize("name", SAMPLES)
def test_interval_is_near_a_plain_percentile_bootstrap(name: str) -> None:
    d = SAMPLES[name]
    draws = np.random.default_rng(123).choice(d, (20_000, d.size)).mean(axis=1)
    low, high = statistics.bootstrap_mean(d)
    width = np.quantile(draws, 0.975) - np.quantile(draws, 0.025)
    assert low == pytest.approx(np.quantile(draws, 0.025), abs=0.15 * width)
    assert high == pytest.approx(np.quantile(draws, 0.975), abs=0.15 * width)
    assert low < np.mean(d) < high


def test_interval_is_the_same_every_time() -> None:
    d = SAMPLES["skewed"]
    assert statistics.bootstrap_mean(d) == statistics.bootstrap_mean(d.copy())
    assert statistics.bootstrap_mean(d, 1) != statistics.bootstrap_mean(d, 2)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.25] * 4, [0.1]])
def test_differences_that_do_not_vary(values: list[float]) -> None:
    found = statistics.paired(values, margin=0.005)
    assert found.ci95 == (pytest.approx(values[0]), pytest.approx(values[0]))
    assert 0 <= found.wilcoxon_p <= 1
    assert math.isnan(found.cohen_dz)
    if not any(values):
        assert (found.wilcoxon_p, found.rank_biserial) == (1.0, 0.0)


@pytest.mark.parametrize("values", [[0.0] * 9 + [1e-200], [1e-200, -1e-200, 0.0]])
def test_differences_too_small_for_an_acceleration_have_an_interval(values: list[float]) -> None:
    low, high = statistics.paired(values, margin=0.005).ci95
    assert min(values) <= low <= np.mean(values) <= high <= max(values)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1, then never falling: .02 .03 .06 .06
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = statistics.holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert max(adjusted) <= 1
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert all(first[1] <= second[1] for first, second in itertools.pairwise(pairs))
    # No correction is stricter than Bonferroni's.
    assert all(a <= min(1.0, p * len(p_values)) + 1e-12 for a, p in zip(adjusted, p_values, strict=True))


def test_pooling_ignores_nan_and_leaves_empty_cases_out() -> None:
    nan = math.nan
    cases = [
        CaseScores("a", {"1": 0.8, "2": nan}),
        CaseScores("b", {"1": 0.6, "2": 0.4}),
        CaseScores("c", {"1": nan, "2": nan}),
    ]
    assert statistics.pooled_dice(cases, ["1", "2"]) == pytest.approx({"1": 0.7, "2": 0.4})
    assert statistics.case_means(cases, ["1", "2"]) == pytest.approx({"a": 0.8, "b": 0.5})


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), min_size=1, max_size=30))
def test_nan_mean_agrees_with_numpy(values: list[float]) -> None:
    known = [v for v in values if not math.isnan(v)]
    expected = np.nanmean(values) if known else math.nan
    assert statistics.nan_mean(values) == pytest.approx(expected, nan_ok=True)


def test_ranks_and_friedman_agree_with_scipy() -> None:
    scores = {name: list(rng.uniform(0.5, 0.9, 10)) for name in "abcd"}
    found = statistics.rank(scores)
    table = np.asarray(list(scores.values()))
    expected = np.mean([stats.rankdata(-column) for column in table.T], axis=0)
    assert list(found.mean_ranks.values()) == pytest.approx(list(expected))
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*table).pvalue)
    # Demšar (2006), table 5: q at 5 % for four classifiers is 2.569.
    assert found.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 10)), abs=1e-3)


def test_seed_bootstrap_is_wider_than_that_of_cases_when_seeds_differ() -> None:
    base = rng.normal(0.8, 0.05, 40)
    run = np.stack([base + shift + rng.normal(0, 0.002, 40) for shift in (-0.03, 0.0, 0.03)])
    baseline = np.stack([base + rng.normal(0, 0.002, 40) for _ in range(3)])
    low, high = statistics.bootstrap_seeds(run, baseline, resamples=2_000)
    over_cases = statistics.bootstrap_mean(run.mean(axis=0) - baseline.mean(axis=0))
    assert high - low > 3 * (over_cases[1] - over_cases[0])
    assert low < 0 < high


def test_differences_that_vary_by_rounding_alone_do_not_vary(recwarn: pytest.WarningsRecorder) -> None:
    found = statistics.paired([(0.5 + n / 100 + 0.1) - (0.5 + n / 100) for n in range(12)], 0.005)
    assert math.isnan(found.cohen_dz)
    assert found.non_inferiority_p == 0.0
    assert found.ci95 == (found.mean_difference, found.mean_difference)
    assert not list(recwarn)
