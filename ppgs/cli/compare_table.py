"""The comparison as a table on the terminal: as many columns as fit, the most telling ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppgs.cli import output
from ppgs.compare.analysis.verdict import signed
from ppgs.compare.reporting.tables import (
    MISSING,
    caveat_lines,
    hours,
    number,
    ratio,
    significant,
    task_label,
    verdict_lines,
)
from ppgs.compare.results import Comparison, Outcome, Pair, RunResult

_STYLES: dict[Outcome, str] = {"better": "green", "worse": "red", "not worse": "cyan", "undecided": "yellow"}
_GAP = 2


@dataclass(frozen=True)
class _Column:
    """A column; the lowest `rank` stays longest when the terminal is narrow."""

    title: str
    rank: int
    cell: Callable[[RunResult, Pair | None], str]
    right: bool = True


def _difference(_: RunResult, pair: Pair | None) -> str:
    return signed(pair.statistics.mean_difference) if pair else "baseline"


def _interval(_: RunResult, pair: Pair | None) -> str:
    return f"{signed(pair.statistics.ci95[0])} to {signed(pair.statistics.ci95[1])}" if pair else ""


def _reached(_: RunResult, pair: Pair | None) -> str:
    """Training time until the baseline's final Dice was reached."""
    reached = pair.reached_baseline if pair else None
    return hours(reached.seconds) if reached and reached.seconds is not None else ""


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


_BASE = _Column("Base", 0, lambda _, p: number(p.baseline.mean_dice, 4) if p else "")
_COLUMNS = (
    _Column("Cases", 9, lambda r, p: str(p.statistics.cases if p else r.case_count)),
    _Column("Folds", 12, lambda r, _: " ".join(r.run.fold_names) or MISSING),
    _Column("Dice", 0, lambda r, _: number(r.mean_dice, 4)),
    _Column("Diff.", 1, _difference),
    _Column("95 % CI", 2, _interval),
    _Column("p", 11, lambda _, p: _p(p.statistics.wilcoxon_p) if p else ""),
    _Column("p (Holm)", 4, lambda _, p: _p(p.wilcoxon_p_holm) if p else ""),
    _Column("Effect r", 14, lambda _, p: signed(p.statistics.rank_biserial, 2) if p else ""),
    _Column("Verdict", 3, lambda _, p: p.verdict.outcome if p else "", right=False),
    _Column("NSD", 10, lambda r, _: number(r.surface.surface_dice, 4) if r.surface else ""),
    _Column("HD95 mm", 10, lambda r, _: number(r.surface.hd95_mm, 2) if r.surface else ""),
    _Column("Time", 7, lambda r, _: hours(r.cost.seconds) if r.cost.seconds is not None else ""),
    _Column("×", 5, lambda _, p: ratio(p.time_ratio) if p and p.time_ratio else ""),
    _Column("kWh", 8, lambda r, _: significant(r.cost.energy_kwh) if r.cost.energy_kwh is not None else ""),
    _Column("×", 6, lambda _, p: ratio(p.energy_ratio) if p and p.energy_ratio else ""),
    _Column("CO2eq kg*", 13, lambda r, _: significant(r.cost.co2_kg) if r.cost.co2_kg is not None else ""),
    _Column("To base Dice", 13, _reached),
    _Column("PFLOPs", 15, lambda r, _: significant(r.cost.flops / 1e15) if r.cost.flops else ""),
    _Column(
        "Memory", 16, lambda r, _: f"{r.cost.peak_memory_bytes / 2**30:.1f} GiB" if r.cost.peak_memory_bytes else ""
    ),
)


def show(comparison: Comparison) -> None:
    """Print table, verdicts and caveats on stdout."""
    console = Console(file=output.out.file, highlight=False)
    console.print(Text(_title(comparison), style="bold"))
    console.print(_table(comparison, console.width))
    _across(comparison, console)
    for line in [a.verdict for a in comparison.across] or verdict_lines(comparison):
        console.print(Text(line))
    weak = caveat_lines(comparison)
    if any(r.cost.co2_kg is not None for r in comparison.runs):
        gpu = "the GPU's is measured, " if any(r.cost.gpu_kwh for r in comparison.runs) else ""
        basis = ", ".join(sorted({r.cost.co2_basis for r in comparison.runs if r.cost.co2_basis}))
        weak.append(
            f"CO2 is estimated: energy times carbon intensity{f' ({basis})' if basis else ''}; of the energy, "
            f"{gpu}the memory's and, without counters, the CPU's is modelled"
        )
    if weak:
        console.print()
    for line in weak:
        console.print(Text(f"caveat: {line}", style="dim"))


_Row = tuple[str, RunResult, Pair | None]


def _title(comparison: Comparison) -> str:
    if len(comparison.tasks) == 1:
        return comparison.tasks[0].task
    if _as_pairs(comparison):
        baseline, run = (comparison.labels[t.training] for t in (r.run for r in comparison.tasks[0].runs))
        return f"{run} (run) against {baseline} (base), {len(comparison.tasks)} tasks"
    return f"{len(comparison.tasks)} tasks"


def _as_pairs(comparison: Comparison) -> bool:
    """Two trainings on many tasks read best with one row a task."""
    return len(comparison.tasks) > 1 and len(comparison.labels) == 2


def _table(comparison: Comparison, width: int) -> Table:
    rows: list[_Row] = []
    leading: list[tuple[str, list[str]]] = []
    pairs_only = _as_pairs(comparison)
    for task in comparison.tasks:
        pairs = {p.run.run.name: p for p in task.pairs}
        rows += [(task.task, r, pairs.get(r.run.name)) for r in task.runs if not pairs_only or r.run.name in pairs]
    tasks = [task for task, _, _ in rows]
    if len(comparison.tasks) > 1:
        first = [task_label(t) if i == 0 or tasks[i - 1] != t else "" for i, t in enumerate(tasks)]
        leading.append(("Task", first))
    if not pairs_only:
        leading.append(("Training", [comparison.label(r.run) for _, r, _ in rows]))
    columns = (_BASE, *_COLUMNS) if pairs_only else _COLUMNS
    used = sum(max(cell_len(c) for c in (title, *cells)) + _GAP for title, cells in leading)
    chosen = _fitting(columns, rows, width, used)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for title, _ in leading:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for column in chosen:
        title = "Run" if pairs_only and column.title == "Dice" else column.title
        table.add_column(title, justify="right" if column.right else "left", no_wrap=True)
    for index, (_, result, pair) in enumerate(rows):
        style = _STYLES[pair.verdict.outcome] if pair else ""
        cells = [
            Text(column.cell(result, pair), style=style if column.title in ("Verdict", "Diff.") else "")
            for column in chosen
        ]
        table.add_row(*(Text(cells[index]) for _, cells in leading), *cells)
    return table


def _fitting(columns: Sequence[_Column], rows: list[_Row], width: int, used: int) -> list[_Column]:
    """The columns that fit, in their order; one that is empty everywhere is never shown."""
    chosen: list[_Column] = []
    for column in sorted(columns, key=lambda c: c.rank):
        cells = [column.cell(result, pair) for _, result, pair in rows]
        if not any(cells):
            continue
        needed = max(cell_len(column.title), *(cell_len(c) for c in cells)) + _GAP
        if used + needed <= width + _GAP:
            chosen.append(column)
            used += needed
    return [column for column in columns if column in chosen]


def _across(comparison: Comparison, console: Console) -> None:
    console.print()
    if not comparison.across or comparison.ranking is None:
        return
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", title_justify="left")
    for title, justify in (
        ("Training", "left"), ("Wins*", "right"), ("Losses*", "right"), ("Rank", "right"),
        ("Gain", "right"), ("Time", "right"), ("Energy", "right"),
    ):  # fmt: skip
        table.add_column(title, justify="left" if justify == "left" else "right", no_wrap=True)
    lines = {a.training: a for a in comparison.across}
    for training, mean_rank in comparison.ranking.mean_ranks.items():
        line = lines.get(training)
        table.add_row(
            Text(comparison.labels.get(training, training)),
            f"{line.wins} ({line.clear_wins})" if line else "baseline",
            f"{line.losses} ({line.clear_losses})" if line else "",
            f"{mean_rank:.2f}",
            f"{signed(line.mean_relative_gain, 2)} %" if line else "",
            ratio(line.time_ratio) if line and line.time_ratio else "",
            ratio(line.energy_ratio) if line and line.energy_ratio else "",
        )
    console.print(table)
    explained = "* by mean Dice on common cases, in brackets the clear ones; rank and gain are means over tasks"
    console.print(Text(explained, style="dim"))
    console.print()
