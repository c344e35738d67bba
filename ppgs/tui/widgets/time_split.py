"""Distribution of an epoch's time, and whether the training waits for data."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from ppgs.formatting import duration
from ppgs.tui.series import Series
from ppgs.tui.view import Panel, View

# Four glyphs that differ without colour.
_PARTS = (("compute", "█"), ("data wait", "▒"), ("validation", "▞"), ("checkpoint", "░"), ("other", "·"))


class TimeSplit(Static, Panel):
    def facts(self, view: View) -> object:
        return (view.current, id(view.run.state), view.run.state.series.version)

    def draw(self, view: View) -> None:
        self.border_title = "time of an epoch"
        series = view.run.state.series
        rows = []
        if len(series):
            rows.append(("last", range(len(series) - 1, len(series))))
            rows.append(("stage", series.of_stage(int(series.last("stage") or 0))))
            rows.append(("all", range(len(series))))
        text = Text(no_wrap=True, overflow="ellipsis")
        width = max(self.content_size.width - 15, 10)
        for name, where in rows:
            parts = split(series, where)
            whole = sum(parts)
            if whole <= 0:
                continue
            text.append(f"{name:6}")
            for colour, (_, glyph), cells in zip(
                self._colours, _PARTS, shares([p / whole for p in parts], width), strict=True
            ):
                text.append(glyph * cells, colour)
            text.append(f" {_seconds(whole):>8}\n")
        if not rows:
            text.append("known after the first epoch", self.palette.muted)
        else:
            parts = split(series, rows[1][1])
            whole = sum(parts) or 1.0
            for number, (colour, (name, glyph), part) in enumerate(zip(self._colours, _PARTS, parts, strict=True)):
                if number == 3 and width < 60:
                    text.append("\n")
                text.append(glyph, colour).append(f" {name} {part / whole:.0%}  ")
        self.update(text, layout=False)

    @property
    def _colours(self) -> tuple[str, ...]:
        p = self.palette
        return (p.series[0], p.series[1], p.series[2], p.series[3], p.muted)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10_000 else duration(value)


def split(series: Series, where: range) -> list[float]:
    """Return mean seconds of compute, data wait, validation, checkpoint and the rest."""

    def mean(name: str) -> float:
        return max(series.mean(name, where) or 0.0, 0.0)

    wait, train = mean("data_wait_seconds"), mean("train_seconds")
    known = [max(train - wait, 0.0), wait, mean("validation_seconds"), mean("checkpoint_seconds")]
    return [*known, max(mean("seconds") - sum(known), 0.0)]


def shares(parts: list[float], width: int) -> list[int]:
    """Convert parts of one to whole cells by largest remainder: they add up to the width."""
    exact = [p * width for p in parts]
    cells = [int(e) for e in exact]
    by_rest = sorted(range(len(parts)), key=lambda i: exact[i] - cells[i], reverse=True)
    for index in by_rest[: width - sum(cells)]:
        cells[index] += 1
    return cells
