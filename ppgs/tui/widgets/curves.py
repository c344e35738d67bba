"""Loss, pseudo Dice and learning rate over the epochs, drawn by textual-plot."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from rich.text import Text
from textual.events import Resize
from textual.reactive import reactive
from textual_plot import HiResMode, LegendLocation, PlotWidget

from ppgs.tui.source import WatchedRun
from ppgs.tui.view import Panel, View
from ppgs.wording import number

_MOST_CLASSES = 6


@dataclass(frozen=True)
class Curve:
    """One line: `strong` ones are drawn thick, so that they stand out without colour."""

    name: str
    values: array[float]
    colour: str
    strong: bool = False


class CurvePlot(PlotWidget, Panel):
    """A plot with stage boundaries. Zoom with + and -, pan with the arrows, r resets."""

    title = ""
    margin_top, margin_bottom, margin_left = reactive(0), reactive(1), reactive(8)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._drawn: object = None
        self._view: View | None = None

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        """The lines of the run that is looked at."""
        raise NotImplementedError

    def single(self, run: WatchedRun) -> array[float]:
        """The one line that stands for a run where several are overlaid."""
        raise NotImplementedError

    def headline(self, run: WatchedRun) -> str:
        raise NotImplementedError

    def show(self, view: View) -> None:
        self._view = view
        run = view.run
        words = "" if view.overlay else self.headline(run)
        self.border_title = Text.assemble((self.title, "bold"), "  " if words else "", words).markup
        width = max(self.size.width - 12, 8)
        # Drawing costs more than all else: only when there is something new.
        what = (
            tuple((id(r.state.series), r.state.series.version) for r in (view.runs if view.overlay else [run])),
            view.overlay,
            len(run.class_names),
            self.app.theme,
            width,
        )
        if what == self._drawn:
            return
        self._drawn = what
        self.clear()
        lines = list(self._overlaid(view)) if view.overlay else [(run, c) for c in self.curves(run)]
        for owner, curve in lines:
            x, y = thin(owner.state.series.epochs, curve.values, width * 2)
            if len(x):
                mode = HiResMode.QUADRANT if curve.strong else HiResMode.BRAILLE
                self.plot(x, y, line_style=curve.colour, hires_mode=mode, label=curve.name)
        self._boundaries(run, width)
        self.show_legend(LegendLocation.TOPLEFT, is_visible=len(lines) > 1 and self.size.height > 9 and self._has_data)

    @property
    def _has_data(self) -> bool:
        return bool(self._datasets)

    def _overlaid(self, view: View) -> Iterator[tuple[WatchedRun, Curve]]:
        colours = self.palette.series
        for index, run in enumerate(view.runs):
            name = f"{index + 1} {run.name}"
            yield run, Curve(name, self.single(run), colours[index % len(colours)], strong=index == view.current)

    def _boundaries(self, run: WatchedRun, width: int) -> None:
        series, stages = run.state.series, run.state.stages
        if not self._has_data or not len(series):
            return
        first, last = series.epochs[0], series.epochs[-1]
        inside = [e for e in accumulate(s.epochs for s in stages) if first < e <= last]
        if len(inside) * 4 > width:
            return
        for epoch in inside:
            self.add_v_line(epoch + 0.5, line_style=self.palette.future)

    def on_resize(self, _: Resize) -> None:
        if self._view is not None:
            self.call_after_refresh(self.show, self._view)


class LossPlot(CurvePlot):
    title = "loss"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        columns = run.state.series.columns
        yield Curve("train", columns["train_loss"], self.palette.train)
        yield Curve("validation", columns["val_loss"], self.palette.validation, strong=True)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["val_loss"]

    def headline(self, run: WatchedRun) -> str:
        series = run.state.series
        return f"train {number(series.last('train_loss'))}  ▀ validation {number(series.last('val_loss'))}"


class DicePlot(CurvePlot):
    title = "pseudo Dice"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        series, colours = run.state.series, self.palette.series
        names = run.class_names
        for index, values in enumerate(series.classes[:_MOST_CLASSES]):
            name = names[index] if index < len(names) else f"class {index + 1}"
            yield Curve(name, values, colours[(index + 1) % len(colours)])
        yield Curve("moving average", series.columns["ema_dice"], colours[0], strong=True)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["ema_dice"]

    def headline(self, run: WatchedRun) -> str:
        series = run.state.series
        each = [
            f"{run.class_names[i] if i < len(run.class_names) else i + 1} {number(value, 2)}"
            for i, value in enumerate(series.last_dice()[:4])
        ]
        return "  ".join([f"▀ average {number(series.last('ema_dice'))}", *each])


class RatePlot(CurvePlot):
    title = "learning rate"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        yield Curve("learning rate", run.state.series.columns["learning_rate"], self.palette.train)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["learning_rate"]

    def headline(self, run: WatchedRun) -> str:
        rate = run.state.series.last("learning_rate")
        return "-" if rate is None else f"{rate:.2e}"


class SecondsPlot(CurvePlot):
    title = "seconds per epoch"

    def curves(self, run: WatchedRun) -> Iterator[Curve]:
        columns = run.state.series.columns
        yield Curve("seconds", columns["seconds"], self.palette.train)
        yield Curve("data wait", columns["data_wait_seconds"], self.palette.validation, strong=True)

    def single(self, run: WatchedRun) -> array[float]:
        return run.state.series.columns["seconds"]

    def headline(self, run: WatchedRun) -> str:
        series = run.state.series
        return f"{number(series.last('seconds'), 1)}  ▀ data wait {number(series.last('data_wait_seconds'), 1)}"


def thin(epochs: array[int], values: array[float], most: int) -> tuple[Any, Any]:
    """At most about `most` finite points: of every bucket its lowest and its highest, so that no spike is lost."""
    x, y = np.array(epochs, dtype=float) + 1, np.array(values, dtype=float)
    known = np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), max(most // 2, 1) + 1).astype(int)
    picked = set()
    for first, end in pairwise(edges):
        if end > first:
            picked |= {first + int(np.argmin(y[first:end])), first + int(np.argmax(y[first:end]))}
    where = np.array(sorted({0, len(x) - 1, *picked}))
    return x[where], y[where]
