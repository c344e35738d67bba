"""The tables with columns of the registry: their rows, and the order of their columns."""

from __future__ import annotations

from dataclasses import dataclass

from ppgs.compare.reporting.column_types import Table
from ppgs.compare.reporting.formats import MISSING
from ppgs.compare.results import AcrossTasks, Comparison, Pair, RunResult, TaskResult


@dataclass(frozen=True)
class Line:
    """A run in a table; the baseline has no pair."""

    task: TaskResult
    result: RunResult
    pair: Pair | None


@dataclass(frozen=True)
class Standing:
    """A training in a table over tasks; the baseline has no `across`."""

    training: str
    mean_rank: float
    across: AcrossTasks | None


# One row per run.
CSV = Table(
    order=(
        "task", "name", "training", "cases", "folds", "seed", "schedule", "mean_dice", "surface_dice", "hd95_mm",
        "seconds", "gpu_hours", "energy_kwh", "co2_kg", "flops", "peak_memory_bytes",
        "baseline", "mean_difference", "ci95_low", "ci95_high", "wilcoxon_p", "wilcoxon_p_holm", "rank_biserial",
        "cohen_dz", "non_inferiority_p", "wins", "losses", "ties", "outcome", "time_ratio", "energy_ratio", "co2_ratio",
        "dice_per_class",
    )
)  # fmt: skip
_COMPARED = ("mean_difference", "ci95", "wilcoxon_p", "wilcoxon_p_holm", "rank_biserial", "outcome")
TERMINAL = Table(
    order=(
        "baseline_mean_dice", "cases", "folds", "mean_dice", *_COMPARED, "surface_dice", "hd95_mm",
        "seconds", "time_ratio", "energy_kwh", "energy_ratio", "co2_kg", "reached_baseline", "flops",
        "peak_memory_bytes",
    )
)  # fmt: skip
# LaTeX and Markdown.
PAPER = Table(
    order=(
        "cases", "folds", "mean_dice", *_COMPARED, "surface_dice", "hd95_mm", "seconds", "energy_kwh", "co2_kg",
        "time_ratio", "energy_ratio",
    ),
    missing=MISSING,
)  # fmt: skip
# The report's first table, and its table of costs.
SUMMARY = Table(
    order=(
        "cases", "baseline_mean_dice", "mean_dice", *_COMPARED, "surface_dice", "hd95_mm", "time_ratio", "energy_ratio",
    ),
    missing=MISSING,
)  # fmt: skip
COST = Table(
    order=(
        "seconds", "gpu_hours", "energy_kwh", "gpu_kwh", "co2_kg", "flops", "peak_memory_bytes", "time_ratio",
        "energy_ratio", "reached_baseline",
    ),
    missing=MISSING,
)  # fmt: skip
# One row per task; see `one_row_a_task`.
TERMINAL_PAIRS = Table(order=TERMINAL.order, like=TERMINAL)
SUMMARY_PAIRS = Table(order=SUMMARY.order, missing=MISSING, like=SUMMARY)
# One row per training, over all tasks.
_RATIOS = ("time_ratio", "energy_ratio")
TERMINAL_RANKING = Table(order=("wins", "losses", "mean_rank", "mean_relative_gain_percent", *_RATIOS))
RANKING = Table(
    order=("mean_rank", "wins", "losses", "mean_relative_gain_percent", "wilcoxon_p", *_RATIOS), missing=MISSING
)
# One row per scheme, over its seeds.
SEEDS = Table(order=("scheme", "seeds", "mean_dice", "sd", "lowest", "highest"), missing=MISSING)


def one_row_a_task(comparison: Comparison) -> bool:
    """Return True if only pairs are shown: two trainings on several tasks are easiest to read with one row per task."""
    return len(comparison.tasks) > 1 and len(comparison.labels) == 2


def lines_of(task: TaskResult) -> list[Line]:
    """Return the runs of a task, its baseline first."""
    pairs = {pair.run.run.name: pair for pair in task.pairs}
    return [Line(task, result, pairs.get(result.run.name)) for result in task.runs]


def standings_of(comparison: Comparison) -> list[Standing]:
    """Return the trainings of the ranking over tasks; empty without a ranking."""
    if comparison.ranking is None:
        return []
    across = {line.training: line for line in comparison.across}
    return [Standing(name, rank, across.get(name)) for name, rank in comparison.ranking.mean_ranks.items()]
