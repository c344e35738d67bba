"""Effects of the mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import DataTable, Input, TabbedContent, Tabs

from ppgs.runs.folder import RunFolder
from ppgs.tui.app import MonitorApp
from ppgs.tui.screens.help import Help
from ppgs.tui.screens.main import TABS
from ppgs.tui.screens.question import Question
from ppgs.tui.widgets.curves import LossPlot
from ppgs.tui.widgets.key_bar import KeyBar
from ppgs.tui.widgets.slices import SlicesPanel
from ppgs.tui.widgets.timeline import Timeline
from tests.tui.conftest import PATCHES, FakeControl, Limits, Open, drive, limits, make_run, settled, ways

SIZES = [(80, 24), pytest.param((200, 50), marks=pytest.mark.slow)]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def shown_tab(app: MonitorApp) -> str:
    return app.main.query_one("#tabs", TabbedContent).active


async def click(pilot: Pilot[Any], widget: Widget, x: int, y: int = 0) -> None:
    assert await pilot.click(widget, offset=(x, y))
    await settled(pilot)


async def scroll(pilot: Pilot[Any], widget: Widget, x: int, y: int, kind: type[events.MouseEvent]) -> None:
    await pilot._post_mouse_events([kind], widget, (x, y), button=0)
    await settled(pilot)


@sizes
@pytest.mark.slow
def test_tabs(results: Path, open_monitor: Open, size: tuple[int, int]) -> None:
    app = open_monitor(make_run(results, "training"))
    seen: list[str] = []

    async def steps(pilot: Pilot[Any]) -> None:
        for tab in reversed(list(app.main.query_one(Tabs).query("Tab").results(Widget))):
            await click(pilot, tab, 2)
            seen.append(shown_tab(app))

    drive(app, steps, size)
    assert seen == list(reversed(TABS))


@sizes
@pytest.mark.parametrize("stage", range(len(PATCHES)))
def test_a_stage_in_the_timeline_is_looked_up(
    results: Path, open_monitor: Open, stage: int, size: tuple[int, int]
) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        timeline = app.main.query_one(Timeline)
        # Stages are equally long here.
        x = int((stage + 0.5) * timeline.content_size.width / len(PATCHES)) + timeline.content_region.x
        await click(pilot, timeline, x - timeline.region.x, 2)
        assert shown_tab(app) == "stages"
        table = app.main.query_one("#stages-table", DataTable)
        assert table.cursor_row == stage
        assert app.focused is table

    drive(app, steps, size)


def test_the_timelines_frame_and_a_run_without_stages_are_no_stage(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "preparing"))

    async def steps(pilot: Pilot[Any]) -> None:
        await click(pilot, app.main.query_one(Timeline), 20, 2)
        assert shown_tab(app) == "overview"

    drive(app, steps)
    other = open_monitor(make_run(results, "training", fold=1))

    async def on_the_frame(pilot: Pilot[Any]) -> None:
        await click(pilot, other.main.query_one(Timeline), 20, 0)
        assert shown_tab(other) == "overview"

    drive(other, on_the_frame)


@sizes
def test_a_run_of_the_list_is_looked_at(results: Path, open_monitor: Open, size: tuple[int, int]) -> None:
    app = open_monitor(*(make_run(results, "training", fold=fold) for fold in range(3)))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("8")
        await settled(pilot)
        table = app.main.query_one("RunTable", DataTable)
        first = table.content_region.y - table.region.y + table.header_height
        await click(pilot, table, 10, first + 2)
        assert (table.cursor_row, app.current) == (2, 0)
        await click(pilot, table, 10, first + 2)
        assert app.current == 2
        assert shown_tab(app) == "overview"

    drive(app, steps, size)


def test_a_picture_of_the_list_is_looked_at(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settled(pilot)
        table = app.main.query_one("#slice-table", DataTable)
        await click(pilot, table, 4, table.header_height)
        assert "after epoch 1 " in str(app.main.query_one(SlicesPanel).border_title)

    drive(app, steps)


@sizes
@pytest.mark.parametrize("where", ["plot", "margin-left", "margin-bottom"])
def test_the_wheel_zooms_around_the_pointer(
    results: Path, open_monitor: Open, where: str, size: tuple[int, int]
) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        part = plot.query_one(f"#{where}")
        # Beside the plot the wheel changes that axis alone.
        x, y = (part.size.width // 3, part.size.height // 3) if where == "plot" else (3, 0)
        left, right, bottom, top = limits(plot)
        await scroll(pilot, part, x, y, events.MouseScrollUp)
        nearer = limits(plot)
        assert (nearer[1] - nearer[0] < right - left) is (where != "margin-left")
        assert (nearer[3] - nearer[2] < top - bottom) is (where != "margin-bottom")
        if where == "plot":
            # More is cut off on the right, which is further from the pointer.
            assert right - nearer[1] > nearer[0] - left > 0
        await scroll(pilot, part, x, y, events.MouseScrollDown)
        farther = limits(plot)
        assert farther[1] - farther[0] > nearer[1] - nearer[0] or where == "margin-left"
        assert farther[3] - farther[2] > nearer[3] - nearer[2] or where == "margin-bottom"

    drive(app, steps, size)


def test_dragging_a_plot_moves_what_it_shows(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot = app.main.query_one("#curves-loss", LossPlot)
        part = plot.query_one("#plot")
        before = limits(plot)
        x, y = part.region.x + 10, part.region.y + 2
        moved = events.MouseMove(part, x + 4, y + 1, 4, 1, 1, False, False, False, x + 4, y + 1)
        app.screen._forward_event(moved)
        await settled(pilot)
        after = limits(plot)
        # What is under the pointer goes with it: to the right and down.
        assert after[0] < before[0] and after[2] > before[2]
        assert after[1] - after[0] == pytest.approx(before[1] - before[0])

    drive(app, steps)


Effect = Callable[[MonitorApp], bool]
ENTRIES: dict[str, tuple[str, Effect]] = {
    "n Next run": ("1", lambda app: app.current == 1),
    "o Overlay": ("1", lambda app: app.overlay),
    "s Stop": ("1", lambda app: isinstance(app.screen, Question)),
    "/ Search": ("1", lambda app: isinstance(app.focused, Input)),
    "d Dark/light": ("1", lambda app: not app.current_theme.dark),
    "? Help": ("1", lambda app: isinstance(app.screen, Help)),
    "^p palette": ("1", lambda app: isinstance(app.screen, CommandPalette)),
    "e SVG": ("1", lambda _: bool(list(Path().glob("*.svg")))),
    "x CSV": ("1", lambda _: bool(list(Path().glob("*.csv")))),
    "q Leave": ("1", lambda app: app.return_value == "left"),
    "v Class": ("3", lambda app: app.main.query_one(SlicesPanel)._class == 0),
    "b Contours": ("3", lambda app: app.main.query_one(SlicesPanel)._drawn_what == 1),
    "space Play": ("3", lambda app: app.main.query_one(SlicesPanel)._player is not None),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_key_of_the_bar_can_be_clicked(
    results: Path, open_monitor: Open, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is not over before it is looked at.
    monkeypatch.setattr("ppgs.tui.widgets.slices._FRAMES_PER_SECOND", 1 / 600)
    app = open_monitor(make_run(results, "training"), make_run(results, "training", fold=1))
    tab, has_happened = ENTRIES[entry]
    key, words = entry.split(" ", 1)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(tab)
        await settled(pilot)
        bar = app.main.query_one(KeyBar)
        text = bar.render_line(0).text
        assert entry in text
        assert not has_happened(app)
        await pilot.click(bar, offset=(text.index(entry) + len(key) + 1 + len(words) // 2, 0))
        await settled(pilot)
        assert has_happened(app)

    drive(app, steps, (200, 50))


@pytest.mark.parametrize(
    ("sign", "moves"),
    [
        ("+", "narrow"),
        ("-", "wide"),
        ("←", "less"),
        ("→", "more"),
        ("↑", "higher"),
        ("↓", "lower"),
        ("r Reset", "back"),
    ],
)
def test_the_keys_of_a_plot_can_be_clicked(results: Path, open_monitor: Open, sign: str, moves: str) -> None:
    app = open_monitor(make_run(results, "training"))
    seen: list[Limits] = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        plot, bar = app.main.query_one("#curves-loss", LossPlot), app.main.query_one(KeyBar)
        if moves == "back":
            seen.append(limits(plot))
            await pilot.press("+", "left")
            await settled(pilot)
        else:
            seen.append(limits(plot))
        await click(pilot, bar, bar.render_line(0).text.index(sign))
        seen.append(limits(plot))
        assert app.focused is plot

    drive(app, steps, (200, 50))
    assert moves in ways(*seen)


@pytest.mark.parametrize(
    ("answer", "asked", "outcome"), [("detach", [], "left"), ("stop", ["stop"], None), ("cancel", [], None)]
)
def test_answers_can_be_clicked(
    results: Path, open_monitor: Open, control: FakeControl, answer: str, asked: list[str], outcome: str | None
) -> None:
    run: RunFolder = make_run(results, "training")
    control.working.add(run)
    app = open_monitor(run, own=True)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("q")
        await settled(pilot)
        await pilot.click(f"#answer-{answer}")
        await settled(pilot)
        assert not isinstance(app.screen, Question)

    drive(app, steps)
    assert [what for what, _ in control.asked] == asked
    assert app.return_value == outcome
