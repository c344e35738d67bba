"""The matrix of a sweep: models down, folds across, the status of each."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from ppgs.cli.output import out
from ppgs.cli.runs_table import STYLES
from ppgs.commands.runs import RunRow, row_of
from ppgs.formatting import time_left
from ppgs.runs.state import RunState
from ppgs.runs.sweep import Sweep


def statuses(sweep: Sweep, results: Path) -> dict[str, RunRow | None]:
    """Return the status of every cell by its position; None for one that was not started."""
    return {cell.place: row_of(cell.run(results)) for cell in sweep.cells}


def show_sweep(sweep: Sweep, results: Path) -> None:
    """Print the matrix, and the command that continues the sweep unless it is complete."""
    rows = statuses(sweep, results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(sweep.name, overflow="fold")
    for column in sweep.columns:
        table.add_column(column, no_wrap=True)
    cells = {(cell.row, cell.column): cell for cell in sweep.cells}
    for name in sweep.rows:
        line: list[Text | str] = [name]
        for column in sweep.columns:
            cell = cells.get((name, column))
            line.append("" if cell is None else _cell(rows[cell.place]))
        table.add_row(*line)
    out.print(table)
    done = sum(row is not None and row.status == "finished" for row in rows.values())
    text = f"{done} of {len(sweep.cells)} finished"
    out.print(Text(text if done == len(sweep.cells) else f"{text}; go on with: {sweep.command}"))


def _cell(row: RunRow | None) -> Text:
    if row is None:
        return Text("-", "dim")
    state = row.state
    if row.status == "finished":
        text = "done" if state.mean_dice is None else f"{state.mean_dice:.4f}"
    elif row.status == "training" and state.epochs:
        text = f"{state.epoch}/{state.epochs}, {time_left(state.left)} left"
    elif state.epochs and row.status in ("stopped", "interrupted", "failed", "queued"):
        text = f"{row.status} {state.epoch}/{state.epochs}"
    else:
        text = row.status
    return Text(text, STYLES.get(row.status, "cyan"))


def record(sweep: Sweep, results: Path) -> dict[str, object]:
    """Return the matrix for `--json`."""
    rows = statuses(sweep, results)
    return {
        "name": sweep.name,
        "command": sweep.command,
        "cells": [
            {
                "name": cell.name,
                "path": str(cell.run(results).path),
                "row": cell.row,
                "column": cell.column,
                "status": "not started" if (row := rows[cell.place]) is None else row.status,
                "mean_dice": None if row is None else row.state.mean_dice,
                **seconds_left(None if row is None else row.state),
            }
            for cell in sweep.cells
        ],
    }


def seconds_left(state: RunState | None) -> dict[str, float | None]:
    """Return a run's time left for `--json`, expected and as a range; null while it is unknown."""
    left = None if state is None else state.left
    span = (None, None, None) if left is None else (left.middle, left.low, left.high)
    return dict(zip(("seconds_left", "seconds_left_low", "seconds_left_high"), span, strict=True))
