"""The table of runs that `ppgs runs` prints and that questions let a person choose from."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table

from ppgs.commands.runs import RunRow
from ppgs.formatting import duration, time_left

STYLES = {"finished": "green", "failed": "red", "interrupted": "yellow", "stopped": "yellow", "not started": "dim"}


def table_of(rows: Sequence[RunRow], *, numbered: bool = False) -> Table:
    """Return the table of runs and their status; with `numbered`, numbers from 1 to choose by."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("run", "status", "stage", "epoch", "Dice", "left", "changed")
    for heading in ("", *headings) if numbered else headings:
        table.add_column(heading, overflow="fold", no_wrap=heading != "run")
    for number, row in enumerate(rows, 1):
        state = row.state
        dice = state.mean_dice if state.mean_dice is not None else (state.last_epoch or {}).get("ema_dice")
        table.add_row(
            *([str(number)] if numbered else []),
            row.manifest.name,
            f"[{STYLES.get(row.status, 'cyan')}]{row.status}[/]"
            + ("" if row.stalled_since is None else ", stalled")
            + (", older data" if row.older_data else ""),
            f"{state.stage + 1}/{len(state.stages)}" if state.stages else "-",
            f"{state.epoch}/{state.epochs}" if state.epochs else "-",
            "-" if dice is None else f"{dice:.3f}" + ("" if state.mean_dice is not None else "~"),
            time_left(state.left) if row.status not in ("finished", "failed") else "-",
            f"{duration(max(time.time() - row.manifest.updated, 0.0))} ago",
        )
    return table
