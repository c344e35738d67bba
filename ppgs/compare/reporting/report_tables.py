"""The report's tables: cells with what they show and what they are sorted by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppgs.compare.analysis.verdict import p_text, signed
from ppgs.compare.reporting.drawing import colour_of
from ppgs.compare.reporting.tables import MISSING, hours, number, ratio, significant, task_label
from ppgs.compare.results import Comparison, Outcome, Pair, TaskResult

# Words of the verdict as classes of the style sheet.
LOOK: dict[Outcome, str] = {"better": "better", "worse": "worse", "not worse": "even", "undecided": "open"}


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """Text, and what it is sorted by where that is a number."""

    text: str
    value: float | None = None
    badge: str = ""
    swatch: str = ""


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def _without_empty(grid: Grid) -> Grid:
    """The grid without columns that tell nothing of any row."""
    kept = [i for i in range(len(grid.columns)) if any(row.cells[i].text not in ("", MISSING) for row in grid.rows)]
    rows = tuple(Row(tuple(row.cells[i] for i in kept), row.strong) for row in grid.rows)
    return Grid(tuple(grid.columns[i] for i in kept), rows)


def _figure_cell(value: float | None, text: str | None = None, digits: int = 4) -> Cell:
    known = None if value is None or math.isnan(value) else value
    return Cell(text if text is not None else number(value, digits), known)


def _ratio_cell(value: float | None, otherwise: str) -> Cell:
    return Cell(ratio(value), value) if value is not None else Cell(otherwise)


def summary_table(comparison: Comparison, many: bool) -> Grid:
    # Two trainings on many tasks read best with one row a task.
    as_pairs = many and len(comparison.labels) == 2
    with_surface = any(r.surface for r in comparison.runs)
    heads = [Column("Task")] if many else []
    if as_pairs:
        baseline, run = (comparison.label(r.run) for r in comparison.tasks[0].runs)
        heads += [Column("Cases", True), Column(baseline, True, "mean Dice"), Column(run, True, "mean Dice")]
    else:
        heads += [Column("Training"), Column("Cases", True), Column("Dice", True)]
    heads += [
        Column("Difference", True), Column("95 % CI", True), Column("p", True, "Wilcoxon signed-rank"),
        Column("p (Holm)", True), Column("Effect r", True, "matched-pairs rank-biserial correlation, -1 to 1"),
        Column("Verdict"),
        *([Column("Surface Dice", True, f"at {comparison.tolerance_mm:g} mm"), Column("HD95 mm", True)]
          if with_surface else []),
        Column("Time", True), Column("Energy", True),
    ]  # fmt: skip
    rows = []
    for task in comparison.tasks:
        pairs = {p.run.run.name: p for p in task.pairs}
        for result in task.runs:
            pair = pairs.get(result.run.name)
            if as_pairs and pair is None:
                continue
            cells = [Cell(task_label(task.task))] if many else []
            if not as_pairs:
                swatch = colour_of(comparison, result.run.training)
                cells.append(Cell(comparison.label(result.run), swatch=swatch))
            count = pair.statistics.cases if pair else result.case_count
            cells.append(Cell(str(count), count))
            if as_pairs:
                cells.append(_figure_cell(task.baseline.mean_dice))
            cells += [_figure_cell(result.mean_dice), *_compared(pair)]
            if with_surface:
                surface = result.surface
                cells += [
                    _figure_cell(surface.surface_dice) if surface else Cell(MISSING),
                    _figure_cell(surface.hd95_mm, digits=2) if surface else Cell(MISSING),
                ]
            energy = result.cost.energy_kwh
            cells += [
                _ratio_cell(pair.time_ratio if pair else None, hours(result.cost.seconds)),
                _ratio_cell(
                    pair.energy_ratio if pair else None, MISSING if energy is None else f"{significant(energy)} kWh"
                ),
            ]
            rows.append(Row(tuple(cells), strong=pair is None))
    return _without_empty(Grid(tuple(heads), tuple(rows)))


def _compared(pair: Pair | None) -> list[Cell]:
    """The cells of the comparison with the baseline, from difference to verdict."""
    if pair is None:
        return [Cell("baseline"), *[Cell("")] * 5]
    s = pair.statistics
    return [
        _figure_cell(s.mean_difference, signed(s.mean_difference)),
        _figure_cell(s.ci95[0], f"{signed(s.ci95[0])} to {signed(s.ci95[1])}"),
        _figure_cell(s.wilcoxon_p, p_text(s.wilcoxon_p)),
        _figure_cell(pair.wilcoxon_p_holm, p_text(pair.wilcoxon_p_holm)),
        _figure_cell(s.rank_biserial, signed(s.rank_biserial, 2)),
        Cell(pair.verdict.outcome, badge=LOOK[pair.verdict.outcome]),
    ]


def ranking_table(comparison: Comparison) -> Grid | None:
    if comparison.ranking is None:
        return None
    lines = {a.training: a for a in comparison.across}
    rows = []
    for training, mean_rank in comparison.ranking.mean_ranks.items():
        a = lines.get(training)
        cells = [
            Cell(comparison.labels.get(training, training), swatch=colour_of(comparison, training)),
            _figure_cell(mean_rank, digits=2),
        ]
        if a is None:
            cells += [Cell("baseline"), *[Cell("")] * 5]
        else:
            cells += [
                Cell(f"{a.wins} ({a.clear_wins} clear)", a.wins),
                Cell(f"{a.losses} ({a.clear_losses} clear)", a.losses),
                _figure_cell(a.mean_relative_gain, f"{signed(a.mean_relative_gain, 2)} %"),
                _figure_cell(a.wilcoxon_p, p_text(a.wilcoxon_p)),
                _ratio_cell(a.time_ratio, MISSING),
                _ratio_cell(a.energy_ratio, MISSING),
            ]
        rows.append(Row(tuple(cells), strong=a is None))
    columns = (
        Column("Training"), Column("Mean rank", True), Column("Wins", True), Column("Losses", True),
        Column("Relative gain", True), Column("p over tasks", True), Column("Time", True), Column("Energy", True),
    )  # fmt: skip
    return Grid(columns, tuple(rows))


def seeds_table(task: TaskResult) -> Grid | None:
    if not task.seed_groups:
        return None
    columns = (
        Column("Scheme"), Column("Seeds"), Column("Mean Dice", True), Column("SD", True), Column("Lowest", True),
        Column("Highest", True),
    )  # fmt: skip
    rows = [
        Row(
            (
                Cell(g.name),
                Cell(", ".join(str(r.run.provenance.seed) for r in g.runs)),
                *(_figure_cell(v) for v in (g.mean_dice, g.sd, g.lowest, g.highest)),
            )
        )
        for g in task.seed_groups
    ]
    return Grid(columns, tuple(rows))


def classes_table(comparison: Comparison, task: TaskResult) -> Grid:
    pairs = task.pairs
    with_surface = any(r.surface for r in task.runs)
    columns = [Column("Class")] + [Column(comparison.label(r.run), True, "Dice") for r in task.runs]
    columns += [
        Column("Difference (95 % CI)" if len(pairs) == 1 else f"{comparison.label(p.run.run)} − baseline", True)
        for p in pairs
    ]
    if with_surface:
        columns += [Column(f"NSD {comparison.label(r.run)}", True) for r in task.runs]
        columns += [Column(f"HD95 {comparison.label(r.run)}", True, "mm") for r in task.runs]
    rows = []
    for key, name in task.baseline.run.classes.items():
        cells = [Cell(f"{name} ({key})" if name != key else key)]
        cells += [_figure_cell(r.dice_per_class[key]) for r in task.runs]
        for p in pairs:
            s = p.per_class.get(key)
            text = f"{signed(s.mean_difference)} ({signed(s.ci95[0])} to {signed(s.ci95[1])})" if s else MISSING
            cells.append(Cell(text, s.mean_difference if s else None))
        if with_surface:
            measured = [r.surface.per_class.get(key, (math.nan, math.nan)) if r.surface else None for r in task.runs]
            cells += [_figure_cell(m[0]) if m else Cell(MISSING) for m in measured]
            cells += [_figure_cell(m[1], digits=2) if m else Cell(MISSING) for m in measured]
        rows.append(Row(tuple(cells)))
    return Grid(tuple(columns), tuple(rows))


def cases_table(comparison: Comparison, task: TaskResult) -> Grid:
    folds = {c.case: f.name for f in task.baseline.run.folds for c in f.cases}
    names = list(dict.fromkeys(case for r in task.runs for case in r.per_case))
    two = len(task.runs) == 2
    columns = [Column("Case"), Column("Fold", True)] + [Column(comparison.label(r.run), True) for r in task.runs]
    if two:
        columns.append(Column("Difference", True))
    rows = []
    for case in names:
        values = [r.per_case.get(case, math.nan) for r in task.runs]
        cells = [Cell(case), Cell(folds.get(case, "")), *(_figure_cell(v) for v in values)]
        if two:
            difference = values[1] - values[0]
            cells.append(_figure_cell(difference, MISSING if math.isnan(difference) else signed(difference)))
        rows.append(Row(tuple(cells)))
    return Grid(tuple(columns), tuple(rows))


def cost_table(comparison: Comparison, many: bool) -> Grid:
    columns = [
        *([Column("Task")] if many else []), Column("Training"), Column("Time", True), Column("GPU hours", True),
        Column("Energy kWh", True), Column("of it GPU", True), Column("CO2eq kg (est.)", True), Column("PFLOPs", True),
        Column("Peak memory", True), Column("Time ×", True), Column("Energy ×", True),
        Column("To the baseline's Dice", True, "training time until its final pseudo Dice was reached"),
    ]  # fmt: skip
    pairs = {(p.task, p.run.run.name): p for p in comparison.pairs}
    rows = []
    for r in comparison.runs:
        cost, pair = r.cost, pairs.get((r.run.task, r.run.name))
        memory = cost.peak_memory_bytes
        rows.append(
            Row(
                (
                    *([Cell(task_label(r.run.task))] if many else []),
                    Cell(comparison.label(r.run), swatch=colour_of(comparison, r.run.training)),
                    _figure_cell(cost.seconds, hours(cost.seconds)),
                    _figure_cell(cost.gpu_hours, significant(cost.gpu_hours)),
                    _figure_cell(cost.energy_kwh, significant(cost.energy_kwh)),
                    _figure_cell(cost.gpu_kwh, significant(cost.gpu_kwh)),
                    _figure_cell(cost.co2_kg, significant(cost.co2_kg)),
                    _figure_cell(cost.flops, significant(cost.flops / 1e15) if cost.flops else MISSING),
                    Cell(f"{memory / 2**30:.2f} GiB", memory) if memory else Cell(MISSING),
                    _ratio_cell(pair.time_ratio if pair else None, "baseline" if pair is None else MISSING),
                    _ratio_cell(pair.energy_ratio if pair else None, "" if pair is None else MISSING),
                    _reached_cell(pair),
                ),
                strong=pair is None,
            )
        )
    return _without_empty(Grid(tuple(columns), tuple(rows)))


def _reached_cell(pair: Pair | None) -> Cell:
    """When a run was first as good as the baseline in the end, and in how many of its folds it ever was."""
    reached = pair.reached_baseline if pair else None
    if reached is None:
        return Cell("")
    if reached.seconds is None:
        return Cell("never")
    some = f" ({reached.reached} of {reached.folds} folds)" if reached.reached < reached.folds else ""
    return Cell(f"{hours(reached.seconds)}{some}", reached.seconds)
