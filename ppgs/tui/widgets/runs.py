"""All watched runs; Enter selects one."""

from __future__ import annotations

from rich.cells import cell_len
from textual.widgets import DataTable

from ppgs.formatting import number, time_left
from ppgs.tui.cells import shortened
from ppgs.tui.palette import mark
from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.tables import fill

_COLUMNS = ("", "run", "status", "stage", "epoch", "pseudo Dice", "Dice", "left")


class RunTable(DataTable[str], Panel):
    def on_mount(self) -> None:
        self.cursor_type = "row"
        self.border_title = "runs"
        self._rows_shown: list[tuple[str, ...]] = []

    def draw(self, view: View) -> None:
        rows: list[tuple[str, ...]] = []
        for index, run in enumerate(view.runs):
            state = run.state
            rows.append(
                (
                    "▶" if index == view.current else str(index + 1),
                    run.name,
                    mark(run.status) + (", stalled" if run.stalled_since(view.now) is not None else ""),
                    f"{state.stage + 1}/{len(state.stages)}" if state.stages else "-",
                    f"{state.epoch}/{state.epochs}" if state.epochs else "-",
                    number(state.series.last("ema_dice")),
                    number(state.mean_dice),
                    time_left(run.left),
                )
            )
        # The middle of long names is left out, so that the status of the runs fits beside them.
        columns = [max(map(cell_len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        room = self.content_size.width - sum(columns) - 2 * len(columns) + columns[1]
        rows = [(first, shortened(name, max(room, 10)), *rest) for first, name, *rest in rows]
        if rows != self._rows_shown:
            cursor = self.cursor_row if self._rows_shown else view.current
            self._rows_shown = rows
            fill(self, _COLUMNS, rows)
            self.move_cursor(row=cursor)
