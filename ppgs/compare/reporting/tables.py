"""A comparison as JSON data, and as tables for spreadsheets, papers and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import Any

from ppgs.compare.analysis.verdict import signed
from ppgs.compare.results import Comparison, Pair, RunResult, SeedPair
from ppgs.compare.statistics import Paired, finite


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The result as in the surface (`compare --json`), with more keys."""
    return {
        "runs": [_run(r) for r in comparison.runs],
        "baseline": comparison.tasks[0].baseline.run.name if len(comparison.tasks) == 1 else comparison.baseline,
        "pairs": [_pair(p) for p in comparison.pairs],
        "tasks": [task.task for task in comparison.tasks],
        "margin": comparison.margin,
        "across_tasks": [
            {
                "training": a.training,
                "tasks": a.tasks,
                "wins": a.wins,
                "losses": a.losses,
                "ties": a.ties,
                "clear_wins": a.clear_wins,
                "clear_losses": a.clear_losses,
                "not_worse": a.not_worse,
                "mean_difference": a.mean_difference,
                "mean_relative_gain_percent": finite(a.mean_relative_gain),
                "relative_gain_ci95_percent": [finite(v) for v in a.relative_gain_ci95],
                "wilcoxon_p": a.wilcoxon_p,
                "time_ratio": a.time_ratio,
                "energy_ratio": a.energy_ratio,
                "co2_ratio": a.co2_ratio,
                "verdict": a.verdict,
            }
            for a in comparison.across
        ],
        "ranking": {
            "tasks": comparison.ranking.tasks,
            "mean_ranks": comparison.ranking.mean_ranks,
            "friedman_p": finite(comparison.ranking.friedman_p),
            "critical_difference": comparison.ranking.critical_difference,
        }
        if comparison.ranking
        else None,
        "seeds": [
            {
                "task": g.task,
                "scheme": g.name,
                "runs": [r.run.name for r in g.runs],
                "seeds": [r.run.provenance.seed for r in g.runs],
                "mean_dice": g.mean_dice,
                "sd": finite(g.sd),
                "lowest": g.lowest,
                "highest": g.highest,
            }
            for task in comparison.tasks
            for g in task.seed_groups
        ],
        "seed_pairs": [_seed_pair(p) for task in comparison.tasks for p in task.seed_pairs],
        "notes": list(comparison.notes),
        "left_out": list(comparison.left_out),
        "unpredicted_references": list(comparison.unpredicted),
    }


def _run(result: RunResult) -> dict[str, Any]:
    run, cost = result.run, result.cost
    return {
        "name": run.name,
        "task": run.task,
        "training": run.training,
        "path": str(run.provenance.path),
        "mean_dice": finite(result.mean_dice),
        "dice_per_class": {key: finite(value) for key, value in result.dice_per_class.items()},
        "classes": run.classes,
        "cases": result.case_count,
        "folds": [int(name) for name in run.fold_names if name.isdigit()],
        "fold_all": run.on_training_cases,
        "seed": run.provenance.seed,
        "schedule": run.provenance.schedule,
        "seconds": finite(cost.seconds),
        "seconds_source": cost.source,
        "gpu_hours": finite(cost.gpu_hours),
        "energy_kwh": finite(cost.energy_kwh),
        "gpu_kwh": finite(cost.gpu_kwh),
        "co2_kg": finite(cost.co2_kg),
        "co2_basis": cost.co2_basis,
        "flops": finite(cost.flops),
        "peak_memory_bytes": cost.peak_memory_bytes,
        "surface_dice": finite(result.surface.surface_dice) if result.surface else None,
        "hd95_mm": finite(result.surface.hd95_mm) if result.surface else None,
    }


def _statistics(s: Paired) -> dict[str, Any]:
    return {
        "cases": s.cases,
        "mean_difference": s.mean_difference,
        "median_difference": s.median_difference,
        "ci95": list(s.ci95),
        "wilcoxon_p": s.wilcoxon_p,
        "rank_biserial": s.rank_biserial,
        "cohen_dz": finite(s.cohen_dz),
        "wins": s.wins,
        "losses": s.losses,
        "ties": s.ties,
        "non_inferiority_p": finite(s.non_inferiority_p),
    }


def _pair(pair: Pair) -> dict[str, Any]:
    reached = pair.reached_baseline
    return {
        "run": pair.run.run.name,
        "baseline": pair.baseline.run.name,
        "task": pair.task,
        **_statistics(pair.statistics),
        "wilcoxon_p_holm": pair.wilcoxon_p_holm,
        "common_mean_dice": pair.common_mean_dice,
        "common_baseline_mean_dice": pair.common_baseline_mean_dice,
        "outcome": pair.verdict.outcome,
        "non_inferior": pair.non_inferior,
        "verdict": pair.verdict.sentence,
        "caveats": list(pair.verdict.caveats),
        "per_class": {
            key: {"mean_difference": s.mean_difference, "ci95": list(s.ci95), "cases": s.cases}
            for key, s in pair.per_class.items()
        },
        "time_ratio": pair.time_ratio,
        "energy_ratio": pair.energy_ratio,
        "co2_ratio": pair.co2_ratio,
        "flops_ratio": pair.flops_ratio,
        "memory_ratio": pair.memory_ratio,
        "reached_baseline": {
            "folds": reached.folds,
            "reached": reached.reached,
            "seconds": reached.seconds,
            "share_of_baseline": reached.share_of_baseline,
        }
        if reached
        else None,
    }


def _seed_pair(pair: SeedPair) -> dict[str, Any]:
    return {
        "task": pair.task,
        "scheme": pair.group.name,
        "baseline": pair.baseline.name,
        **_statistics(pair.statistics),
        "ci95_seeds": list(pair.ci95_seeds),
        "wilcoxon_p_holm": pair.wilcoxon_p_holm,
        "time_ratio": pair.time_ratio,
        "energy_ratio": pair.energy_ratio,
        "outcome": pair.verdict.outcome,
        "verdict": pair.verdict.sentence,
        "caveats": list(pair.verdict.caveats),
    }


@dataclass(frozen=True)
class Table:
    """Rows of text with a heading; `numeric` are the columns to align right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int]


MISSING = "–"


def task_label(task: str) -> str:
    """`Dataset004_Hippocampus` as `Hippocampus`."""
    return re.sub(r"^Dataset\d{3}_", "", task)


def hours(seconds: float | None) -> str:
    """Seconds as hours, or as minutes and seconds where they are few."""
    if seconds is None:
        return MISSING
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def number(value: float | None, digits: int, unit: str = "") -> str:
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.{digits}f}{unit}"


def significant(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits, never in exponent form."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}×"


def full_table(comparison: Comparison) -> Table:
    """One row a run of a task, with everything that is known of all of them at once."""
    pairs = {(p.task, p.run.run.name): p for p in comparison.pairs}
    rows = []
    for task in comparison.tasks:
        for result in task.runs:
            pair = pairs.get((task.task, result.run.name))
            s = pair.statistics if pair else None
            rows.append(
                (
                    task.task,
                    comparison.label(result.run),
                    str(result.case_count),
                    str(len(result.run.fold_names)) if result.run.fold_names else MISSING,
                    number(result.mean_dice, 4),
                    signed(s.mean_difference) if s else "baseline",
                    f"{signed(s.ci95[0])} to {signed(s.ci95[1])}" if s else "",
                    _p(s.wilcoxon_p) if s else "",
                    _p(pair.wilcoxon_p_holm) if pair else "",
                    signed(s.rank_biserial, 2) if s else "",
                    pair.verdict.outcome if pair else "",
                    number(result.surface.surface_dice, 4) if result.surface else MISSING,
                    number(result.surface.hd95_mm, 2) if result.surface else MISSING,
                    number(result.cost.seconds / 3600 if result.cost.seconds is not None else None, 2),
                    significant(result.cost.energy_kwh),
                    significant(result.cost.co2_kg),
                    ratio(pair.time_ratio) if pair else "",
                    ratio(pair.energy_ratio) if pair else "",
                )
            )
    columns = (
        "Task", "Training", "Cases", "Folds", "Dice", "Difference", "95 % CI", "p", "p (Holm)", "Effect r", "Verdict",
        "Surface Dice", "HD95 mm", "Hours", "kWh", "kg CO2eq (est.)", "Time", "Energy",
    )  # fmt: skip
    empty = {i for i in range(len(columns)) if all(row[i] in ("", MISSING) for row in rows)}
    kept = [i for i in range(len(columns)) if i not in empty]
    numeric = frozenset(n for n, i in enumerate(kept) if i not in (0, 1, 10))
    return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), numeric)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def to_markdown(comparison: Comparison) -> str:
    """The full table and the verdicts in Markdown."""
    table = full_table(comparison)
    lines = [_pipe(table.columns), _pipe(["---:" if i in table.numeric else "---" for i in range(len(table.columns))])]
    lines += [_pipe(row) for row in table.rows]
    lines += ["", *(f"- {text}" for text in verdict_lines(comparison))]
    return "\n".join(lines) + "\n"


def _pipe(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "−": "$-$", "×": r"$\times$",
    "–": "--", "±": r"$\pm$", "CO2": r"CO\textsubscript{2}",
}  # fmt: skip


def to_latex(comparison: Comparison) -> str:
    """The full table as a LaTeX `tabular` with booktabs rules."""
    table = full_table(comparison)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{" + "".join("r" if i in table.numeric else "l" for i in range(len(table.columns))) + "}",
        "\\toprule",
        _latex_row(table.columns),
        "\\midrule",
    ]
    for index, row in enumerate(table.rows):
        if index and row[0] != table.rows[index - 1][0]:
            lines.append("\\addlinespace")
        lines.append(_latex_row(row))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: tuple[str, ...]) -> str:
    return " & ".join(_escape_latex(cell) for cell in cells) + r" \\"


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text).replace("CO2", _LATEX["CO2"])


def to_csv(comparison: Comparison) -> str:
    """One row a run with unrounded figures and machine-readable names."""
    pairs = {(p["task"], p["run"]): p for p in map(_pair, comparison.pairs)}
    shown = (
        "task", "name", "training", "cases", "folds", "seed", "schedule", "mean_dice", "surface_dice", "hd95_mm",
        "seconds", "gpu_hours", "energy_kwh", "co2_kg", "flops", "peak_memory_bytes",
    )  # fmt: skip
    compared = (
        "baseline", "mean_difference", "ci95_low", "ci95_high", "wilcoxon_p", "wilcoxon_p_holm", "rank_biserial",
        "cohen_dz", "non_inferiority_p", "wins", "losses", "ties", "outcome", "time_ratio", "energy_ratio", "co2_ratio",
    )  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*shown, *compared, "dice_per_class"])
    for result in comparison.runs:
        run = _run(result)
        run["folds"] = " ".join(result.run.fold_names)
        pair = dict(pairs.get((run["task"], run["name"]), {}))
        if pair:
            pair["ci95_low"], pair["ci95_high"] = pair["ci95"]
        classes = " ".join(f"{k}={v}" for k, v in run["dice_per_class"].items())
        writer.writerow([_cell(run[k]) for k in shown] + [_cell(pair.get(k)) for k in compared] + [classes])
    return text.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def verdict_lines(comparison: Comparison) -> list[str]:
    """The verdicts from the widest to the narrowest: over tasks, over seeds, per pair."""
    lines = [a.verdict for a in comparison.across]
    many = len(comparison.tasks) > 1
    for task in comparison.tasks:
        prefix = f"{task.task}: " if many else ""
        verdicts = [p.verdict for p in task.seed_pairs] or [p.verdict for p in task.pairs]
        lines += [prefix + v.sentence for v in verdicts]
    return lines


def caveat_lines(comparison: Comparison) -> list[str]:
    """All caveats, each once, with the tasks that it holds for unless these are all."""
    holds: dict[str, list[str]] = {}
    for task in comparison.tasks:
        verdicts = [p.verdict for p in task.seed_pairs] or [p.verdict for p in task.pairs]
        for text in dict.fromkeys(c for v in verdicts for c in v.caveats):
            holds.setdefault(text, []).append(task.task)
    return [
        text if len(tasks) == len(comparison.tasks) else f"{', '.join(tasks)}: {text}" for text, tasks in holds.items()
    ]
