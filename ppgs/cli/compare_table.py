"""The comparison as a table on the terminal: as many columns as fit, the most telling ones first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppgs.cli import output
from ppgs.compare.reporting.column_types import TableColumn, columns_of
from ppgs.compare.reporting.columns import of_lines, of_standings
from ppgs.compare.reporting.formats import task_label
from ppgs.compare.reporting.layouts import (
    TERMINAL,
    TERMINAL_PAIRS,
    TERMINAL_RANKING,
    Line,
    lines_of,
    one_row_a_task,
    standings_of,
)
from ppgs.compare.reporting.sentences import caveat_lines, verdict_lines
from ppgs.compare.results import Comparison, Outcome

_STYLES: dict[Outcome, str] = {"better": "green", "worse": "red", "not worse": "cyan", "undecided": "yellow"}
_GAP = 2


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


def _title(comparison: Comparison) -> str:
    if len(comparison.tasks) == 1:
        return comparison.tasks[0].task
    if one_row_a_task(comparison):
        baseline, run = (comparison.labels[t.training] for t in (r.run for r in comparison.tasks[0].runs))
        return f"{run} (run) against {baseline} (base), {len(comparison.tasks)} tasks"
    return f"{len(comparison.tasks)} tasks"


def _table(comparison: Comparison, width: int) -> Table:
    pairs_only = one_row_a_task(comparison)
    lines = [line for task in comparison.tasks for line in lines_of(task) if line.pair or not pairs_only]
    tasks = [line.task.task for line in lines]
    leading: list[tuple[str, list[str]]] = []
    if len(comparison.tasks) > 1:
        first = [task_label(t) if i == 0 or tasks[i - 1] != t else "" for i, t in enumerate(tasks)]
        leading.append(("Task", first))
    if not pairs_only:
        leading.append(("Training", [comparison.label(line.result.run) for line in lines]))
    used = sum(max(cell_len(c) for c in (title, *cells)) + _GAP for title, cells in leading)
    columns = _fitting(columns_of(TERMINAL_PAIRS if pairs_only else TERMINAL, of_lines()), lines, width, used)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for title, _ in leading:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=True)
    for index, line in enumerate(lines):
        style = _STYLES[line.pair.verdict.outcome] if line.pair else ""
        cells = [Text(column.cell(line).text, style=style if column.marked else "") for column in columns]
        table.add_row(*(Text(cells[index]) for _, cells in leading), *cells)
    return table


def _fitting(
    columns: Sequence[TableColumn[Line]], lines: Sequence[Line], width: int, used: int
) -> list[TableColumn[Line]]:
    """Return the columns that fit, in order, without those that are empty in every row."""
    chosen: list[TableColumn[Line]] = []
    for column in sorted(columns, key=lambda c: c.priority):
        cells = [column.cell(line).text for line in lines]
        if not any(cells):
            continue
        needed = max(cell_len(column.title), *(cell_len(c) for c in cells)) + _GAP
        if used + needed <= width + _GAP:
            chosen.append(column)
            used += needed
    return [column for column in columns if column in chosen]


def _across(comparison: Comparison, console: Console) -> None:
    console.print()
    standings = standings_of(comparison)
    if not comparison.across or not standings:
        return
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", title_justify="left")
    columns = columns_of(TERMINAL_RANKING, of_standings())
    table.add_column("Training", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for standing in standings:
        name = Text(comparison.labels.get(standing.training, standing.training))
        table.add_row(name, *(column.cell(standing).text for column in columns))
    console.print(table)
    explained = "* by mean Dice on common cases, in brackets the clear ones; rank and gain are means over tasks"
    console.print(Text(explained, style="dim"))
    console.print()
