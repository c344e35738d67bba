"""Keys that stop, resume or leave a training, and the question before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot

from ppgs.tui.screens.question import Question
from ppgs.tui.widgets.key_bar import KeyBar
from ppgs.tui.widgets.status_bar import Notice
from tests.tui.conftest import FakeControl, Open, choose_in_palette, drive, make_run, settled


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_leaving_a_run_that_another_trains_needs_no_question(
    results: Path, open_monitor: Open, control: FakeControl, key: str
) -> None:
    app = open_monitor(make_run(results, "training"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press(key)

    drive(app, steps)
    assert (app.return_value, control.asked) == ("left", [])


@pytest.mark.parametrize("answer", ["c", "escape", "ctrl+c"])
def test_a_key_pressed_twice_answers_once(results: Path, open_monitor: Open, control: FakeControl, answer: str) -> None:
    run = make_run(results, "training")
    control.working.add(run)
    app = open_monitor(run, own=True)

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("q")
        await pilot.pause()
        # As a terminal sends them: the second is there before the first has been acted on.
        for _ in range(2):
            app.screen.post_message(Key(answer, None))
        await pilot.pause()
        assert not isinstance(app.screen, Question)
        assert control.asked == []

    drive(app, steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
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


def test_quit_in_the_palette_asks(results: Path, open_monitor: Open, control: FakeControl) -> None:
    run = make_run(results, "training")
    control.working.add(run)
    app = open_monitor(run, own=True)

    async def steps(pilot: Pilot[Any]) -> None:
        await choose_in_palette(pilot, "quit")
        assert isinstance(app.screen, Question)
        await pilot.press("d")

    drive(app, steps)
    assert app.return_value == "left"


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Signals that the monitor does not catch; without this they would end the tests."""
    missed: list[int] = []
    caught = [signal.SIGTERM, signal.SIGUSR1]
    before = [signal.signal(number, lambda number, _: missed.append(number)) for number in caught]
    yield missed
    for number, handler in zip(caught, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("own", "works", "sent", "asked", "outcome"),
    [
        (True, True, signal.SIGTERM, ["stop"], None),
        (True, False, signal.SIGTERM, [], "ended"),
        (True, False, signal.SIGUSR1, [], "ended"),
        (False, False, signal.SIGTERM, [], "left"),
    ],
)
def test_signals_stop_ones_own_training_and_else_end_the_monitor(
    results: Path,
    open_monitor: Open,
    control: FakeControl,
    signals: list[int],
    own: bool,
    works: bool,
    sent: int,
    asked: list[str],
    outcome: str | None,
) -> None:
    run = make_run(results, "training" if works or not own else "finished")
    control.working.add(run)
    app = open_monitor(run, own=own)

    async def steps(pilot: Pilot[Any]) -> None:
        if not works:
            control.working.clear()
            # A key keeps the monitor open after the training.
            await pilot.press("2")
        signal.raise_signal(sent)
        await pilot.pause()
        await pilot.pause()

    drive(app, steps)
    assert (signals, [what for what, _ in control.asked], app.return_value) == ([], asked, outcome)


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


def test_stop_in_the_palette_asks(results: Path, open_monitor: Open, control: FakeControl) -> None:
    run = make_run(results, "training")

    async def steps(pilot: Pilot[Any]) -> None:
        await choose_in_palette(pilot, "stop with")
        assert control.asked == []
        await pilot.press("s")

    drive(open_monitor(run), steps)
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


def test_a_run_that_is_being_resumed_is_not_resumed_again(
    results: Path, open_monitor: Open, control: FakeControl
) -> None:
    run = make_run(results, "stopped")
    control.working.add(run)
    app = open_monitor(run)

    async def steps(pilot: Pilot[Any]) -> None:
        assert "c Resume" not in app.main.query_one(KeyBar).render_line(0).text
        await pilot.press("c")

    drive(app, steps)
    assert control.asked == []


def test_the_command_that_resumes_is_never_cut(
    results: Path, open_monitor: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "another" / name))
    deep = Path("a" * 10) / "nnUNet_results"
    app = open_monitor(make_run(deep, "presumed dead"))
    lines: list[str] = []

    async def steps(pilot: Pilot[Any]) -> None:
        for width in (80, 200):
            await pilot.resize_terminal(width, 24)
            await settled(pilot)
            lines.extend(str(app.main.query_one(Notice).content).splitlines()[1:])

    drive(app, steps, size=(80, 24))
    command = f"ppgs resume demo-efficiency-fold0 --root {tmp_path / ('a' * 10)}"
    words = "Continue from its last checkpoint with c, or:"
    assert lines == [words, command, f"{words}  {command}"]


def test_a_refusal_is_told(results: Path, open_monitor: Open, control: FakeControl) -> None:
    control.refuses = True
    app = open_monitor(make_run(results, "stopped"))

    async def steps(pilot: Pilot[Any]) -> None:
        await pilot.press("c")
        await pilot.pause()
        assert [n.message for n in app._notifications] == ["the run is finished\nrun [1]\ntrain another"]

    drive(app, steps)
