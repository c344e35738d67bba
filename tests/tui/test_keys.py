"""What the keys do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Log, TabbedContent

from ppgs.tui.app import MonitorApp
from ppgs.tui.screens.help import Help
from ppgs.tui.screens.main import TABS
from ppgs.tui.screens.question import Question
from ppgs.tui.widgets.curves import LossPlot
from ppgs.tui.widgets.key_bar import KeyBar
from ppgs.tui.widgets.patch import PatchBoxes
from ppgs.tui.widgets.runs import RunTable
from tests.tui.conftest import PATCHES, FakeControl, Open, drive, make_run, settled


def test_numbers_open_tabs(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        for number, tab in enumerate(TABS, 1):
            await pilot.press(str(number))
            await pilot.pause()
            assert app.main.query_one("#tabs", TabbedContent).active == tab

    drive(app, steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving_a_run_that_another_trains_needs_no_question(
    results: Path, open_monitor: Open, control: FakeControl, key: str
) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)

    drive(app, steps)
    assert (app.return_value, control.asked) == ("left", [])


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
@pytest.mark.parametrize(
    ("answer", "asked", "outcome"),
    [("d", [], "left"), ("s", ["stop"], None), ("c", [], None), ("escape", [], None), ("ctrl+c", [], None)],
)
def test_leaving_ones_own_training_asks(
    results: Path,
    open_monitor: Open,
    control: FakeControl,
    key: str,
    answer: str,
    asked: list[str],
    outcome: str | None,
) -> None:
    run = make_run(results, "training")
    control.working.add(run)
    app = open_monitor(run, own=True)
    asks = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await pilot.pause()
        asks.append(isinstance(app.screen, Question))
        await pilot.press(answer)
        await pilot.pause()
        asks.append(isinstance(app.screen, Question))

    drive(app, steps)
    assert asks == [True, False]
    assert [what for what, _ in control.asked] == asked
    assert app.return_value == outcome


def test_it_ends_with_ones_own_training_after_a_stop(results: Path, open_monitor: Open, control: FakeControl) -> None:
    run = make_run(results, "training")
    control.working.add(run)
    app = open_monitor(run, own=True, refresh=0.05)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("q", "s")
        await pilot.pause(0.2)
        assert app.is_running
        control.working.clear()
        for _ in range(100):
            if app.return_value is not None:
                return
            await pilot.pause(0.05)

    drive(app, steps)
    assert app.return_value == "ended"


def test_stop_asks_and_stops(results: Path, open_monitor: Open, control: FakeControl) -> None:
    run = make_run(results, "training")
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("s", "c")
        assert control.asked == []
        await pilot.press("s", "s")

    drive(app, steps)
    assert control.asked == [("stop", run)]


@pytest.mark.parametrize("status", ["stopped", "failed", "presumed dead"])
def test_resume(results: Path, open_monitor: Open, control: FakeControl, status: str) -> None:
    run = make_run(results, status)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("s", "c")

    drive(open_monitor(run), steps)
    assert control.asked == [("resume", run)]


@pytest.mark.parametrize("status", ["training", "finished"])
def test_a_run_that_goes_on_or_is_done_is_not_resumed(
    results: Path, open_monitor: Open, control: FakeControl, status: str
) -> None:
    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("c")

    drive(open_monitor(make_run(results, status)), steps)
    assert control.asked == []


def test_a_refusal_is_told(results: Path, open_monitor: Open, control: FakeControl) -> None:
    control.refuses = True
    app = open_monitor(make_run(results, "stopped"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("c")
        await pilot.pause()
        assert [n.message for n in app._notifications] == ["the run is finished"]

    drive(app, steps)


def test_runs_are_turned_chosen_and_overlaid(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"), make_run(results, "finished", fold=1))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("n")
        assert app.current == 1
        await pilot.press("n")
        assert app.current == 0
        await pilot.press("p")
        assert app.current == 1
        await pilot.press("o")
        assert app.overlay
        await pilot.press("8")
        await settled(pilot)
        app.main.query_one(RunTable).move_cursor(row=0)
        await pilot.press("enter")
        await settled(pilot)
        assert app.current == 0
        assert app.main.query_one("#tabs", TabbedContent).active == "overview"

    drive(app, steps)


def test_search_keeps_matching_lines(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    with run.log.open("a") as log:
        log.write("a NEEDLE of a line\n")
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("slash")
        await settled(pilot)
        await pilot.press(*"needle2"[:-1])
        await settled(pilot)
        log = app.main.query_one("#log Log", Log)
        assert [line for line in log.lines if line] == ["a NEEDLE of a line"]
        await pilot.press("enter", "escape")
        await settled(pilot)
        assert app.main.query_one("#log Input", Input).value == ""
        assert len([line for line in log.lines if line]) == 31

    drive(app, steps)


def test_zoom_pan_reset(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)

        def limits() -> tuple[float, ...]:
            return plot._x_min, plot._x_max, plot._y_min, plot._y_max

        before = limits()
        await pilot.press("+")
        await settled(pilot)
        zoomed = limits()
        assert zoomed[1] - zoomed[0] < before[1] - before[0]
        await pilot.press("right")
        await settled(pilot)
        assert limits()[0] > zoomed[0]
        await pilot.press("r")
        await settled(pilot)
        assert limits() == pytest.approx(before)

    drive(app, steps)


def test_exports(results: Path, open_monitor: Open) -> None:
    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("e", "x")
        await pilot.pause()

    drive(open_monitor(make_run(results, "training")), steps)
    (svg,), (table,) = Path().glob("*.svg"), Path().glob("*.csv")
    assert svg.read_text().startswith("<svg")
    rows = list(csv.DictReader(table.open()))
    assert [r["epoch"] for r in rows] == [str(i) for i in range(1, 17)]
    assert [r["stage"] for r in rows[:7]] == ["1"] * 6 + ["2"]
    assert float(rows[0]["pseudo_dice_organ"]) == pytest.approx(0.2)


def test_theme_and_help(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("d")
        assert not app.current_theme.dark
        await pilot.press("d")
        assert app.current_theme.dark
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, Help)

    drive(app, steps)


def test_every_command_of_the_palette_is_offered(results: Path, open_monitor: Open) -> None:
    app: MonitorApp = open_monitor(make_run(results, "training"))
    titles: list[str] = []

    async def steps(pilot: Pilot[Any]) -> None:
        titles.extend(c.title for c in app.get_system_commands(app.screen))

    drive(app, steps)
    assert {"Show curves", "Save view as SVG", "Save curves as CSV", "Stop with a checkpoint"} <= set(titles)
    assert "Resume the run" not in titles


def test_the_keys_below_are_those_that_mean_something_and_can_be_clicked(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        bar = app.main.query_one(KeyBar)
        words = bar.render_line(0).text
        assert "^p palette" in words
        assert "q Leave" in words and "s Stop" in words and "c Resume" not in words
        await pilot.click(KeyBar, offset=(words.index("? Help"), 0))
        await settled(pilot)
        assert isinstance(app.screen, Help)

    drive(app, steps)


def test_the_patch_of_a_2d_run_has_two_axes(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    events = run.events.read_text()
    for z, y, x in PATCHES:
        events = events.replace(f'"patch_size": [{z}, {y}, {x}]', f'"patch_size": [{y}, {x}]')
    run.events.write_text(events)
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        assert app.main.query_one(PatchBoxes).border_title == "patch (y, x)"

    drive(app, steps)
