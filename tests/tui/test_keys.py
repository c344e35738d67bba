"""Effects of keys: tabs, runs, search, help, palette, exports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from textual.binding import BindingsMap
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import Input, Log, Static, TabbedContent
from textual_plot import PlotWidget

from ppgs.tui.app import MonitorApp
from ppgs.tui.screens.help import KEYS, Help
from ppgs.tui.screens.main import TABS
from ppgs.tui.widgets.curves import LossPlot
from ppgs.tui.widgets.key_bar import KeyBar
from ppgs.tui.widgets.log import LogPanel
from ppgs.tui.widgets.patch import PatchBoxes
from ppgs.tui.widgets.progress import Progress
from ppgs.tui.widgets.runs import RunTable
from ppgs.tui.widgets.slices import SlicesPanel
from tests.tui.conftest import PATCHES, Open, choose_in_palette, drive, make_run, records_until, settled, write_events


def test_numbers_open_tabs(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        for number, tab in enumerate(TABS, 1):
            await pilot.press(str(number))
            await pilot.pause()
            assert app.main.query_one("#tabs", TabbedContent).active == tab

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


def test_warnings_stay_above_the_end_of_the_log(results: Path, open_monitor: Open) -> None:
    warned, other = make_run(results, "training"), make_run(results, "training", fold=1)
    told = [{"type": "warning", "message": words} for words in ("an early one", "a late one")]
    write_events(warned, [*records_until("training"), *told])
    app = open_monitor(warned, other)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("6")
        await settled(pilot)
        shown = app.main.query_one("#log VerticalScroll", VerticalScroll)
        log = app.main.query_one("#log Log", Log)
        words = str(shown.query_one(Static).render())
        assert words.splitlines() == ["warning: a late one", "warning: an early one"]
        assert shown.region.bottom <= log.region.y
        assert log.is_vertical_scroll_end
        await pilot.press("slash", *"line", "enter")
        await settled(pilot)
        assert shown.display
        # No new line of the log comes with it.
        later = {"type": "warning", "message": "the latest"}
        write_events(warned, [*records_until("training"), *told, later])
        await app._catch_up(app.run_shown)
        app.draw()
        await settled(pilot)
        assert str(shown.query_one(Static).render()).startswith("warning: the latest")
        assert "3 warnings" in str(app.main.query_one("#log LogPanel", LogPanel).border_title)
        await pilot.press("n")
        await settled(pilot)
        assert not shown.display

    drive(app, steps)


def test_a_replaced_log_takes_the_place_of_the_old_one(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("6")
        await settled(pilot)
        run.log.unlink()
        # More lines than the old log has.
        run.log.write_text("".join(f"new line {i}\n" for i in range(40)))
        await app._catch_up(app.run_shown)
        app.draw()
        await settled(pilot)
        lines = [line for line in app.main.query_one("#log Log", Log).lines if line]
        assert lines == [f"new line {i}" for i in range(40)]

    drive(app, steps)


def test_damaged_lines_are_reported(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    with run.events.open("a") as file:
        file.write("no json\n" * 2)
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("6")
        await settled(pilot)
        title = str(app.main.query_one("#log LogPanel", LogPanel).border_title)
        assert "2 damaged records skipped" in title

    drive(app, steps)


@pytest.mark.parametrize("key", ["question_mark", "f1"])
@pytest.mark.parametrize("close", ["escape", "q", "question_mark", "enter"])
def test_help_opens_and_closes(results: Path, open_monitor: Open, key: str, close: str) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert isinstance(app.screen, Help)
        await pilot.press(close)
        await pilot.pause()
        assert not isinstance(app.screen, Help)
        assert app.return_value is None

    drive(app, steps)


def test_help_closes_once(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("question_mark")
        await pilot.pause()
        shown = app.screen
        for _ in range(2):
            shown.dismiss()
        await pilot.pause()
        assert app.screen is app.main
        assert app.return_value is None

    drive(app, steps)


@pytest.mark.parametrize("kind", [MonitorApp, LossPlot, SlicesPanel, LogPanel])
def test_help_has_every_key(kind: type[Any]) -> None:
    """Those that zoom one axis alone, with two modifiers, are the plots' own and left out."""
    told = " ".join(keys for keys, _ in KEYS)
    for sign, keys in (("1 - 8", "1 2 3 4 5 6 7 8"), ("arrows", "left right up down"), ("/", "slash")):
        told = told.replace(sign, keys)
    named = set(told.replace("?", "question_mark f1").split())
    bindings = (PlotWidget if kind is LossPlot else kind).BINDINGS
    bound = set(BindingsMap(bindings).key_to_bindings)
    assert bound
    signs = {"plus": "+", "minus": "-"}
    assert {signs.get(key, key) for key in bound if not key.startswith("ctrl+") or key == "ctrl+c"} <= named


def test_tab_moves_between_panels(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))
    focused = []

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("2")
        await settled(pilot)
        for _ in range(4):
            focused.append(type(app.focused).__name__)
            await pilot.press("tab")

    drive(app, steps)
    assert focused == ["LossPlot", "DicePlot", "RatePlot", "SecondsPlot"]


def test_the_palette_opens_a_tab(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await choose_in_palette(pilot, "show slices")
        assert app.main.query_one("#tabs", TabbedContent).active == "slices"

    drive(app, steps)


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "6"])
def test_the_keys_below_fit_where_help_is_told(results: Path, open_monitor: Open, key: str) -> None:
    app = open_monitor(make_run(results, "training"), make_run(results, "training", fold=1))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await settled(pilot)
        words = app.main.query_one(KeyBar).render_line(0).text
        assert "q Leave" in words and "? Help" in words and "^p palette" in words
        assert "…" not in words

    drive(app, steps)


def test_what_is_saved_in_time_energy_and_co2(results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "finished"))
    lines = []

    async def steps(pilot: Pilot[Any]) -> None:
        for size in ((80, 24), (200, 50)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            lines.append(str(app.main.query_one("#when", Static).content).splitlines()[1])

    drive(app, steps)
    # Six epochs a stage, each of 4 + 0.0015 x voxels seconds at 0.08 Wh a second, and 0.38 kg a kWh.
    each = [4 + 0.0015 * z * y * x for z, y, x in PATCHES]
    constant, curriculum = 30 * each[-1], 6 * sum(each)
    part, energy = 1 - curriculum / constant, 0.08 * (constant - curriculum)
    assert f"saves ~{part:.0%}, {energy:.3g} Wh" in lines[0]
    assert f"saves ~{part:.0%} of a constant patch's time, {energy:.3g} Wh, {energy * 0.38:.3g} g CO2" in lines[1]


@pytest.mark.parametrize(
    ("percent", "told"), [(0, ("saves", "~0%")), (-3, ("takes", "~3% more than constant")), (7, ("saves", "~7%"))]
)
def test_what_saves_nothing_is_not_called_minus_nothing(percent: int, told: tuple[str, str]) -> None:
    assert Progress()._saved(percent, None, None) == told


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


@pytest.mark.parametrize("key", ["e", "x"])
def test_a_removed_working_folder_is_reported(
    results: Path, open_monitor: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The run, which has stopped, is elsewhere; the command that resumes it is shown all the same."""
    app = open_monitor(make_run(tmp_path / results, "stopped"))
    app._exports = None
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await pilot.pause()
        (notification,) = app._notifications
        assert "cannot be written: No such file or directory" in notification.message

    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    drive(app, steps)


def test_every_theme_can_be_chosen(results: Path, open_monitor: Open) -> None:
    run = make_run(results, "training")
    write_events(run, [*records_until("training"), {"type": "warning", "message": "one"}])
    app = open_monitor(run, make_run(results, "presumed dead", fold=1))
    seen = []

    async def steps(pilot: Pilot[Any]) -> None:
        for name in app.available_themes:
            app.theme = name
            for _ in app.runs:
                await pilot.press("n")
                await settled(pilot)
            seen.append(name)

    drive(app, steps)
    assert {"ansi-dark", "ansi-light", "ppgs-dark"} <= set(seen)


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
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert len(app.screen_stack) == 2
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
