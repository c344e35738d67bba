"""The report's tables: cells with their text and sort value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ppgs.compare.analysis.verdict import signed
from ppgs.compare.reporting.column_types import Table, TableColumn, columns_of
from ppgs.compare.reporting.columns import of_lines, of_seed_groups, of_standings
from ppgs.compare.reporting.drawing import colour_of
from ppgs.compare.reporting.formats import MISSING, interval, number, task_label
from ppgs.compare.reporting.layouts import (
    COST,
    RANKING,
    SEEDS,
    SUMMARY,
    SUMMARY_PAIRS,
    Line,
    lines_of,
    one_row_a_task,
    standings_of,
)
from ppgs.compare.results import Comparison, Outcome, TaskResult

R = TypeVar("R")

# Words of the verdict as classes of the style sheet.
LOOK: dict[Outcome, str] = {"better": "better", "worse": "worse", "not worse": "even", "undecided": "open"}


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """Text, and the number to sort by if there is one."""

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
    """Return the grid without columns that are empty in every row."""
    kept = [i for i in range(len(grid.columns)) if any(row.cells[i].text not in ("", MISSING) for row in grid.rows)]
    rows = tuple(Row(tuple(row.cells[i] for i in kept), row.strong) for row in grid.rows)
    return Grid(tuple(grid.columns[i] for i in kept), rows)


def _figure_cell(value: float | None, text: str | None = None, digits: int = 4) -> Cell:
    known = None if value is None or math.isnan(value) else value
    return Cell(text if text is not None else number(value, digits), known)


def _column(column: TableColumn[Any]) -> Column:
    return Column(column.title, column.numeric, column.hint)


def _cells(columns: Sequence[TableColumn[R]], row: R, outcome: Outcome | None = None) -> Iterator[Cell]:
    """Yield the cells of the row. Those of marked columns carry the badge of the outcome."""
    for column in columns:
        cell = column.cell(row)
        yield Cell(cell.text, cell.value, badge=LOOK[outcome] if outcome and column.marked else "")


def _lines_table(comparison: Comparison, table: Table, lines: Sequence[Line], *, named: bool) -> Grid:
    """Return one row per run, with the name of its training if `named`, and of its task if there are several."""
    baseline, run = (comparison.label(r.run) for r in comparison.tasks[0].runs[:2])
    names = {"baseline": baseline, "run": run, "tolerance": f"{comparison.tolerance_mm:g}"}
    columns = columns_of(table, of_lines(), names)
    many = len(comparison.tasks) > 1
    heads = [*([Column("Task")] if many else []), *([Column("Training")] if named else [])]
    rows = []
    for line in lines:
        cells = [Cell(task_label(line.task.task))] if many else []
        if named:
            training = line.result.run
            cells.append(Cell(comparison.label(training), swatch=colour_of(comparison, training.training)))
        cells += _cells(columns, line, line.pair.verdict.outcome if line.pair else None)
        rows.append(Row(tuple(cells), strong=line.pair is None))
    return _without_empty(Grid((*heads, *map(_column, columns)), tuple(rows)))


def summary_table(comparison: Comparison) -> Grid:
    lines = [line for task in comparison.tasks for line in lines_of(task)]
    if one_row_a_task(comparison):
        return _lines_table(comparison, SUMMARY_PAIRS, [line for line in lines if line.pair], named=False)
    return _lines_table(comparison, SUMMARY, lines, named=True)


def cost_table(comparison: Comparison) -> Grid:
    lines = [line for task in comparison.tasks for line in lines_of(task)]
    return _lines_table(comparison, COST, lines, named=True)


def ranking_table(comparison: Comparison) -> Grid | None:
    standings = standings_of(comparison)
    if not standings:
        return None
    columns = columns_of(RANKING, of_standings())
    rows = []
    for standing in standings:
        training = standing.training
        name = Cell(comparison.labels.get(training, training), swatch=colour_of(comparison, training))
        rows.append(Row((name, *_cells(columns, standing)), strong=standing.across is None))
    return Grid((Column("Training"), *map(_column, columns)), tuple(rows))


def seeds_table(task: TaskResult) -> Grid | None:
    if not task.seed_groups:
        return None
    columns = columns_of(SEEDS, of_seed_groups())
    return Grid(tuple(map(_column, columns)), tuple(Row(tuple(_cells(columns, group))) for group in task.seed_groups))


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
            spread = interval(s.ci95) if s and s.cases > 1 else "1 case"
            text = f"{signed(s.mean_difference)} ({spread})" if s else MISSING
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
        fold = folds.get(case, "")
        cells = [Cell(case), Cell(fold, float(fold) if fold.isdigit() else None), *(_figure_cell(v) for v in values)]
        if two:
            difference = values[1] - values[0]
            cells.append(_figure_cell(difference, MISSING if math.isnan(difference) else signed(difference)))
        rows.append(Row(tuple(cells)))
    return Grid(tuple(columns), tuple(rows))
