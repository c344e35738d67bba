"""Keys that zoom and move plots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from ppgs.tui.widgets.curves import LossPlot, ValueAxis
from tests.tui.conftest import Limits, Open, drive, limits, make_run, settled, ways


def test_zoom_pan_reset(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        before = limits(plot)
        await pilot.press("+")
        await settled(pilot)
        zoomed = limits(plot)
        assert zoomed[1] - zoomed[0] < before[1] - before[0]
        await pilot.press("right")
        await settled(pilot)
        assert limits(plot)[0] > zoomed[0]
        await pilot.press("r")
        await settled(pilot)
        assert limits(plot) == pytest.approx(before)

    drive(app, steps)


def test_after_a_reset_new_epochs_are_followed_again(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    app = open_monitor(run, refresh=0.05)

    async def until(pilot: Pilot[Any], epochs: int) -> None:
        with run.events.open("a") as file:
            for epoch in range(epochs - 2, epochs):
                fields = {"epoch": epoch, "stage": 2, "train_loss": -0.1 * epoch, "val_loss": 0.1 * epoch}
                file.write(json.dumps({"v": 1, "seq": epoch, "time": 1.0, "type": "epoch_finished", **fields}) + "\n")
        for _ in range(200):
            await pilot.pause(0.05)
            if len(app.run_shown.state.series) == epochs:
                break
        await settled(pilot)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        await pilot.press("+")
        await settled(pilot)
        zoomed = limits(plot)
        await until(pilot, 18)
        assert limits(plot) == zoomed
        await pilot.press("r")
        await settled(pilot)
        await until(pilot, 20)
        assert plot._x_max == 20
        assert plot._y_min < -2 and plot._y_max > 2

    drive(app, steps)


@pytest.mark.slow
def test_a_zoomed_plot_shows_every_epoch_that_it_has_room_for(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "finished")
    lines = run.events.read_text().splitlines()
    for epoch in range(30, 5000):
        fields = {"epoch": epoch, "stage": 4, "train_loss": epoch % 2, "val_loss": 0.5}
        lines.append(json.dumps({"v": 1, "seq": epoch, "time": 1.0, "type": "epoch_finished", **fields}))
    run.events.write_text("".join(line + "\n" for line in lines))
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        while plot._x_max - plot._x_min > 40:
            await pilot.press("+")
            await settled(pilot)
        line = plot._datasets[-2]
        left, right = plot._x_min, plot._x_max
        seen = [(x, y) for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True) if left <= x <= right]
        assert seen == [(x, (x - 1) % 2) for x in range(math.ceil(left), math.floor(right) + 1)]
        # The line continues to where it leaves the plot.
        assert line.x[0] < left and line.x[-1] > right

    drive(app, steps)


@pytest.mark.parametrize(
    ("keys", "moves"),
    [("+", "narrow"), ("-", "wide"), ("left", "less"), ("right", "more"), ("up", "higher"), ("down", "lower")],
)
def test_every_key_of_a_plot(results: Path, open_monitor: Open, keys: str, moves: str) -> None:
    app = open_monitor(make_run(results, "training"))
    seen: list[Limits] = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        for _ in range(2):
            seen.append(limits(plot))
            await pilot.press(keys)
            await settled(pilot)

    drive(app, steps)
    assert moves in ways(*seen)


def test_ticks_lie_on_rows_of_their_own() -> None:
    axis = ValueAxis()
    axis.most = 4
    assert axis.get_ticks(0.0, 1.0) == pytest.approx([0.0, 0.4, 0.8])
    assert axis.get_ticks(0.05, 0.93) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    axis.most = 1
    assert axis.get_ticks(0.0, 1.0) == pytest.approx([0.0, 1.0])  # one alone would say nothing about the scale
    axis.most = 100
    assert len(axis.get_ticks(0.0, 1.0)) == 6
