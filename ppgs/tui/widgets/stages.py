"""The table of stages: patch, batch, and predicted and measured cost."""

from __future__ import annotations

from textual.widgets import DataTable

from ppgs.formatting import number, patch_text, size
from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.tables import fill

_COLUMNS = ("", "#", "patch", "batch", "epochs", "s/epoch", "memory", "predicted", "Dice")


class StageTable(DataTable[str], Panel):
    """`~` marks what is estimated."""

    def on_mount(self) -> None:
        self.cursor_type = "row"
        self.zebra_stripes = True
        self.border_title = "stages"
        self._rows_shown: list[tuple[str, ...]] = []
        self._wanted: int | None = None

    def facts(self, view: View) -> object:
        state = view.run.state
        return (view.current, id(state), state.series.version, state.stage, state.epoch, list(state.stages))

    def look_up(self, stage: int) -> None:
        """Go to a stage's row, after the rows are drawn."""
        if self._rows_shown:
            self.move_cursor(row=stage)
        else:
            self._wanted = stage

    def draw(self, view: View) -> None:
        state = view.run.state
        series, seconds = state.series, state.stage_seconds
        rows: list[tuple[str, ...]] = []
        for index, stage in enumerate(state.stages[:2000]):
            where = series.of_stage(index)
            record = state.stage_records[index] if index < len(state.stage_records) else {}
            predicted = record.get("memory_bytes")
            over = state.epochs and state.epoch >= state.epochs
            sign = (
                "▶" if index == state.stage and not over else "✓" if len(where) and len(where) >= stage.epochs else ""
            )
            # Estimates are of training only; older logs record the peak of the whole epoch.
            peak = series.most("train_peak_memory_bytes", where)
            each = "-" if seconds is None else ("" if len(where) else "~") + _seconds(seconds[index])
            rows.append(
                (
                    sign,
                    str(index + 1),
                    patch_text(stage.patch_size),
                    str(stage.batch_size),
                    f"{len(where)}/{stage.epochs}",
                    each,
                    size(peak if peak is not None else series.most("peak_memory_bytes", where)),
                    size(predicted) if isinstance(predicted, (int, float)) else "N/A",
                    number(series.columns["ema_dice"][where.stop - 1]) if len(where) else "-",
                )
            )
        if rows == self._rows_shown:
            return
        cursor = self.cursor_row
        fresh = len(rows) != len(self._rows_shown)
        self._rows_shown = rows
        fill(self, _COLUMNS, rows)
        self.move_cursor(row=cursor if not fresh else state.stage if self._wanted is None else self._wanted)
        self._wanted = None


def _seconds(value: float) -> str:
    return number(value, 2 if value < 1000 else 0)
