"""Real five-fold results of nnU-Net on all ten Decathlon tasks, against independent computations.

The results are not part of the repository: they lie in `shared/msd` beside it.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.results import Comparison
from ppgs.tasks import Roots

MSD = Path(__file__).resolve().parents[3] / "shared" / "msd"
BASE, OTHER = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres"
# Mean foreground Dice pooled over all cases, hours and kg CO2eq a fold of the default plans, as published.
PUBLISHED = {
    "Dataset001_BrainTumour": (0.7398, 15.6, 1.69), "Dataset002_Heart": (0.9339, 7.8, 1.21),
    "Dataset003_Liver": (0.7952, 6.4, 1.00), "Dataset004_Hippocampus": (0.8904, 2.0, 0.25),
    "Dataset005_Prostate": (0.7393, 5.6, 0.90), "Dataset006_Lung": (0.6822, 7.5, 1.17),
    "Dataset007_Pancreas": (0.6606, 6.1, 1.02), "Dataset008_HepaticVessel": (0.6832, 3.7, 0.56),
    "Dataset009_Spleen": (0.9664, 6.1, 0.99), "Dataset010_Colon": (0.4596, 6.2, 1.02),
}  # fmt: skip

pytestmark = pytest.mark.skipif(not MSD.is_dir(), reason="needs shared/msd beside the repository")


@cache
def comparison() -> Comparison:
    return compare(CompareRequest((str(MSD),), Roots.under(Path("/none")), baseline="nnUNetPlans"))


def table(task: str, model: str) -> dict[str, list[float]]:
    """Dice of every case, read without any code of ours."""
    found = {}
    for path in (MSD / task / model).glob("fold_*/validation/summary.json"):
        for entry in json.loads(path.read_text())["metric_per_case"]:
            name = entry["prediction_file"].rsplit("/", 1)[-1]
            assert name not in found
            found[name] = [entry["metrics"][k]["Dice"] for k in sorted(entry["metrics"])]
    return found


@pytest.mark.parametrize("task", PUBLISHED)
def test_pooled_dice_time_and_co2_are_the_published_ones(task: str) -> None:
    result = next(t for t in comparison().tasks if t.task == task).baseline
    dice, hours, kilograms = PUBLISHED[task]
    assert result.run.training == BASE
    assert result.mean_dice == pytest.approx(dice, abs=5e-5)
    # A fold's mean, of five.
    assert result.cost.seconds / 5 / 3600 == pytest.approx(hours, abs=0.051)  # type: ignore[operator]
    assert result.cost.co2_kg / 5 == pytest.approx(kilograms, abs=0.0051)  # type: ignore[operator]


@pytest.mark.parametrize("task", PUBLISHED)
def test_every_figure_of_a_task_agrees_with_numpy_and_scipy(task: str) -> None:
    pair = next(p for p in comparison().pairs if p.task == task)
    base, other = table(task, BASE), table(task, OTHER)
    both = sorted(base.keys() & other.keys())
    a, b = np.asarray([base[c] for c in both]), np.asarray([other[c] for c in both])
    assert pair.baseline.mean_dice == pytest.approx(np.nanmean(a, axis=0).mean())
    assert pair.run.mean_dice == pytest.approx(np.nanmean(b, axis=0).mean())
    d = np.nanmean(b, axis=1) - np.nanmean(a, axis=1)
    assert pair.statistics.cases == len(both) == len(base)
    assert pair.statistics.mean_difference == pytest.approx(d.mean(), abs=1e-12)
    assert pair.statistics.wilcoxon_p == pytest.approx(stats.wilcoxon(d).pvalue)
    draws = np.random.default_rng(11).choice(d, (20_000, d.size)).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    # BCa shifts the percentile interval where the differences are skewed, by far less than its width.
    assert pair.statistics.ci95 == pytest.approx((low, high), abs=0.35 * (high - low))


def test_holm_of_all_ten_by_hand() -> None:
    raw = np.asarray([p.statistics.wilcoxon_p for p in comparison().pairs])
    order = np.argsort(raw)
    stepped = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    expected = np.empty_like(raw)
    expected[order] = stepped
    assert [p.wilcoxon_p_holm for p in comparison().pairs] == pytest.approx(list(expected))


def test_headline_over_tasks() -> None:
    (line,) = comparison().across
    means = {
        m: [np.nanmean(np.asarray(list(table(t, m).values())), axis=0).mean() for t in PUBLISHED] for m in (BASE, OTHER)
    }
    a, b = np.asarray(means[BASE]), np.asarray(means[OTHER])
    assert (line.wins, line.losses) == (int(np.sum(b > a)), int(np.sum(b < a)))
    assert line.mean_relative_gain == pytest.approx(np.mean(100 * (b - a) / a))
    assert line.wilcoxon_p == pytest.approx(stats.wilcoxon(b, a).pvalue)
    ranking = comparison().ranking
    assert ranking is not None
    assert ranking.mean_ranks[OTHER] == pytest.approx(1 + np.mean(b < a))


def test_energy_ratio_of_a_task_from_the_files() -> None:
    task = "Dataset004_Hippocampus"

    def total(model: str) -> float:
        rows = [next(csv.DictReader(p.open())) for p in (MSD / task / model).glob("fold_*/emissions.csv")]
        return sum(float(row["energy_consumed"]) for row in rows)

    pair = next(p for p in comparison().pairs if p.task == task)
    assert pair.energy_ratio == pytest.approx(total(OTHER) / total(BASE))


def test_convergence_is_read_where_it_is() -> None:
    base, other = comparison().tasks[3].runs
    assert all(f.curve and len(f.curve.epochs) == 1000 for f in base.run.folds)
    assert all(f.curve is None for f in other.run.folds)
