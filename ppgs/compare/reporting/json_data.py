"""A comparison as JSON data, for scripts."""

from __future__ import annotations

from typing import Any

from ppgs.compare.reporting import columns
from ppgs.compare.reporting.column_types import plain, record
from ppgs.compare.results import Comparison


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Convert the result to the data of `compare --json`."""
    return {
        "runs": [record(columns.RUN, run) for run in comparison.runs],
        "baseline": comparison.tasks[0].baseline.run.name if len(comparison.tasks) == 1 else comparison.baseline,
        "pairs": [record(columns.PAIR, pair) for pair in comparison.pairs],
        "tasks": [task.task for task in comparison.tasks],
        "margin": comparison.margin,
        "across_tasks": [record(columns.ACROSS, line) for line in comparison.across],
        "ranking": {
            "tasks": comparison.ranking.tasks,
            "mean_ranks": comparison.ranking.mean_ranks,
            "friedman_p": plain(comparison.ranking.friedman_p),
            "critical_difference": comparison.ranking.critical_difference,
        }
        if comparison.ranking
        else None,
        "seeds": [record(columns.SEED_GROUP, group) for task in comparison.tasks for group in task.seed_groups],
        "seed_pairs": [record(columns.SEED_PAIR, pair) for task in comparison.tasks for pair in task.seed_pairs],
        "notes": list(comparison.notes),
        "left_out": list(comparison.left_out),
        "unpredicted_references": list(comparison.unpredicted),
    }
