"""Loss, pseudo Dice and learning rate over the epochs, drawn by textual-plot."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Grid
from textual.content import Content
from textual.reactive import reactive
from textual_plot import HiResMode, PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter
from textual_plot.plot_widget import Legend

from ppgs.formatting import number
from ppgs.tui.cells import shortened
from ppgs.tui.source import WatchedRun
from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.canvas import StyledCanvas

_MOST_CLASSES = 6


class ValueAxis(NumericAxisFormatter):
    """An axis with no more ticks than fit (at least two), so that none are drawn over each other."""

    most = 8

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        ticks = super().get_ticks(min_, max_, max_ticks)
        if len(ticks) <= self.most:
            return ticks
        every_tick, interval = ticks, ticks[1] - ticks[0]
        for every in (2, 5, 10, 20, 50):
            kept = [tick for tick in every_tick if round(tick / interval) % every == 0]
            if len(kept) < 2:
                break
            ticks = kept
            if len(ticks) <= self.most:
                break
        return ticks


class EpochAxis(ValueAxis):
    """An axis of whole epochs."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        return [tick for tick in super().get_ticks(min_, max_, max_ticks) if tick == round(tick)]

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [f"{tick:.0f}" for tick in ticks]


@dataclass(frozen=True)
class Curve:
    """One series: `line` series are joined, others are points, so that they differ without colour."""

    name: str
    values: array[float]
    colour: str
    line: bool = True


class CurvePlot(PlotWidget, Panel):
    """A plot with stage boundaries. Zoom with + and -, pan with the arrows, r resets."""

    title = ""
    margin_top, margin_bottom, margin_left = reactive(0), reactive(1), reactive(8)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        # As in maps, up is nearer.
        super().__init__(id=id, classes=classes, invert_mouse_wheel=True)
        # Zoomed or panned to these limits (x, y): new epochs must not move what one looks at.
        self._moved: tuple[float, float, float, float] | None = None
        self._epochs, self._values = EpochAxis(), ValueAxis()
        self.set_x_formatter(self._epochs)
        self.set_y_formatter(self._values)

    def compose(self) -> ComposeResult:
        """Compose as PlotWidget on canvases that support NO_COLOR; the title is the legend."""
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield StyledCanvas(1, 1, id=name)
        yield Legend(id="legend")

    def _position_legend(self) -> None:
        """Do nothing: the legend is hidden, and moving it would lay out the whole screen again."""

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        """Return the curves of the selected run."""
        raise NotImplementedError

    def single(self, run: WatchedRun) -> array[float]:
        """Return the one series that represents a run if several are overlaid."""
        raise NotImplementedError

    def digits(self, value: float | None) -> str:
        return number(value)

    def facts(self, view: View) -> object:
        runs = view.runs if view.overlay else [view.run]
        versions = [(id(run.state.series), run.state.series.version) for run in runs]
        return (view.current, view.overlay, len(view.run.class_names), self._moved, versions)

    def draw(self, view: View) -> None:
        run = view.run
        lines = list(self._overlaid(view)) if view.overlay else [(run, c) for c in self.curves(run)]
        self.border_title = self._headline([curve for _, curve in lines])
        most = max(self.size.width - 12, 8) * 2
        # A zoomed range is drawn in full.
        window = self._moved[:2] if self._moved is not None and not self._auto_x_min else None
        thinned = [(curve, *thin(owner.state.series.epochs, curve.values, most, window)) for owner, curve in lines]
        thinned = [one for one in thinned if len(one[1])]
        self.clear()
        if thinned and self._moved is None:
            low, high = min(float(y.min()) for _, _, y in thinned), max(float(y.max()) for _, _, y in thinned)
            # The frame covers points right at the limits.
            room = 0.06 * (high - low) or 0.1
            self.set_ylimits(low - room, high + room)
        self._boundaries(run, thinned, most)
        for curve, x, y in thinned:
            if curve.line and len(x) > 1:
                self.plot(x, y, line_style=curve.colour, hires_mode=HiResMode.BRAILLE)
            else:
                self.scatter(x, y, marker_style=curve.colour, hires_mode=HiResMode.BRAILLE)
        widest = len(str(view.run.state.epochs)) + 3
        self._epochs.most = max((self.size.width - 12) // widest, 2)
        self._values.most = max((self.size.height - 3) // 2, 3)
        ticks: list[float] | None = None if thinned or self._moved is not None else []
        self.set_xticks(ticks)
        self.set_yticks(ticks)
        # Draw now: PlotWidget's own drawing when painted appears only one frame later.
        self.render()

    def _headline(self, curves: list[Curve]) -> Content:
        """Return the title, which is also the legend: coloured names, a sign for line or points, the newest values.

        Where that is too much, long names give way before the last curves do.
        """
        whole = self._legend(curves, None)
        over = whole.cell_length + 4 - self.size.width
        longest = max((cell_len(curve.name) for curve in curves), default=0)
        return whole if over <= 0 else self._legend(curves, max(longest - over, 16))

    def _legend(self, curves: list[Curve], longest: int | None) -> Content:
        parts: list[Content | tuple[str, str] | str] = [(self.title, "bold")]
        for curve in curves:
            name = curve.name if longest is None else shortened(curve.name, longest)
            newest = next((v for v in reversed(curve.values) if v == v), None)
            sign = ("⠤" if curve.line else "⠐") + (" " if self.size.width > 50 else "")
            parts.append("  " if self.size.width > 50 else " ")
            parts.append((f"{sign}{name}{' ' if name else ''}{self.digits(newest)}", curve.colour))
        return Content.assemble(*parts)

    def _overlaid(self, view: View) -> Iterator[tuple[WatchedRun, Curve]]:
        colours = self.palette.series
        for index, run in enumerate(view.runs):
            colour = colours[index % len(colours)]
            yield run, Curve(str(index + 1), self.single(run), colour, line=index == view.current)

    def _boundaries(self, run: WatchedRun, drawn: list[tuple[Curve, Any, Any]], most: int) -> None:
        """Draw each stage's start as a vertical line below the curves."""
        series, stages = run.state.series, run.state.stages
        if not drawn or not len(series):
            return
        first, last = series.epochs[0], series.epochs[-1]
        inside = [e for e in accumulate(s.epochs for s in stages) if first < e <= last]
        if self._moved is not None:
            _, _, low, high = self._moved
        else:
            low, high = min(float(y.min()) for _, _, y in drawn), max(float(y.max()) for _, _, y in drawn)
        if len(inside) * 8 > most or low == high:
            return
        for epoch in inside:
            x = epoch + 0.5
            self.plot([x, x], [low, high], line_style=self.palette.future, hires_mode=HiResMode.BRAILLE)

    def on_plot_widget_scale_changed(self, event: PlotWidget.ScaleChanged) -> None:
        self._moved = (event.x_min, event.x_max, event.y_min, event.y_max)
        self.again()

    def action_reset_scales(self) -> None:
        super().action_reset_scales()
        # After the scale-changed message, which this sends too.
        self.call_later(self._follow)

    def _follow(self) -> None:
        self._moved = None
        self.again()


class LossPlot(CurvePlot):
    title = "loss"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        columns = run.state.series.columns
        yield Curve("train", columns["train_loss"], self.palette.train)
        yield Curve("validation", columns["val_loss"], self.palette.validation, line=False)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["val_loss"]


class DicePlot(CurvePlot):
    title = "pseudo Dice"

    def digits(self, value: float | None) -> str:
        return number(value, 2 if self.size.width <= 50 else 3)

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        series, colours = run.state.series, self.palette.series
        names = run.class_names
        yield Curve("", series.columns["ema_dice"], colours[0])
        for index, values in enumerate(series.classes[:_MOST_CLASSES]):
            name = names[index] if index < len(names) else f"class {index + 1}"
            yield Curve(name, values, colours[(index + 1) % len(colours)], line=False)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["ema_dice"]


class RatePlot(CurvePlot):
    title = "learning rate"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        yield Curve("", run.state.series.columns["learning_rate"], self.palette.train)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["learning_rate"]

    def digits(self, value: float | None) -> str:
        return "-" if value is None else f"{value:.2e}"


class SecondsPlot(CurvePlot):
    title = "seconds an epoch"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        columns = run.state.series.columns
        yield Curve("all", columns["seconds"], self.palette.train)
        yield Curve("data wait", columns["data_wait_seconds"], self.palette.validation, line=False)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["seconds"]

    def digits(self, value: float | None) -> str:
        return number(value, 1)


def thin(
    epochs: array[int], values: array[float], most: int, window: tuple[float, float] | None = None
) -> tuple[Any, Any]:
    """Thin to about `most` finite points: the lowest and highest of every bucket, so that no spike is lost.

    With a `window`, only the epochs (from 1) in it, and one beside it on each side, to which lines lead.
    """
    x, y = np.array(epochs, dtype=float) + 1, np.array(values, dtype=float)
    known = np.isfinite(y)
    x, y = x[known], y[known]
    if window is not None:
        first, end = np.searchsorted(x, window[0]), np.searchsorted(x, window[1], side="right")
        x, y = x[max(first - 1, 0) : end + 1], y[max(first - 1, 0) : end + 1]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), max(most // 2, 1) + 1).astype(int)
    picked = set()
    for first, end in pairwise(edges):
        if end > first:
            picked |= {first + int(np.argmin(y[first:end])), first + int(np.argmax(y[first:end]))}
    where = np.array(sorted({0, len(x) - 1, *picked}))
    return x[where], y[where]
