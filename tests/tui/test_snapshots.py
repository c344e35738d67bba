"""Pictures of every screen in every state. After a wanted change: pytest tests/tui --snapshot-update, and look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui.conftest import Open, make_run, records_until, settled, write_events

SIZES = [(80, 24), pytest.param((200, 50), marks=pytest.mark.slow)]
STATES = ["preparing", "training", "validating", "finished", "stopped", "failed", "presumed dead"]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def pressing(*keys: str) -> Any:
    async def before(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        for key in keys:
            await pilot.press(key)
            await settled(pilot)

    return before


@sizes
@pytest.mark.parametrize("status", STATES)
def test_states(snap_compare: Any, results: Path, open_monitor: Open, status: str, size: tuple[int, int]) -> None:
    assert snap_compare(open_monitor(make_run(results, status)), terminal_size=size, run_before=pressing())


@sizes
@pytest.mark.parametrize("key", ["2", "3", "4", "5", "6", "7", "8", "question_mark", "s", "d"])
def test_screens(snap_compare: Any, results: Path, open_monitor: Open, key: str, size: tuple[int, int]) -> None:
    assert snap_compare(open_monitor(make_run(results, "training")), terminal_size=size, run_before=pressing(key))


@sizes
@pytest.mark.parametrize("key", ["1", "6", "d"])
def test_warnings(snap_compare: Any, results: Path, open_monitor: Open, key: str, size: tuple[int, int]) -> None:
    run = make_run(results, "training")
    told = [
        {"type": "warning", "message": "the versions of torch differ: 2.12.0 before, 2.13.0 now"},
        {"type": "warning", "message": "the training will end about 2m10s late: one epoch in every stage to come, "
         "and the final validation (1m50s), take longer than the time that is left"},
    ]  # fmt: skip
    write_events(run, [*records_until("training"), *told])
    assert snap_compare(open_monitor(run), terminal_size=size, run_before=pressing(key))


@sizes
def test_leaving_asks(
    snap_compare: Any, results: Path, open_monitor: Open, control: Any, size: tuple[int, int]
) -> None:
    run = make_run(results, "training")
    control.working.add(run)
    assert snap_compare(open_monitor(run, own=True), terminal_size=size, run_before=pressing("q"))


@sizes
def test_runs_overlaid(snap_compare: Any, results: Path, open_monitor: Open, size: tuple[int, int]) -> None:
    runs = [make_run(results, "training"), make_run(results, "finished", schedule="constant", offset=-0.1)]
    assert snap_compare(open_monitor(*runs), terminal_size=size, run_before=pressing("2", "o"))


def test_one_class_of_an_earlier_slice(snap_compare: Any, results: Path, open_monitor: Open) -> None:
    app = open_monitor(make_run(results, "finished"))
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing("3", "left", "left", "v"))


@pytest.mark.parametrize("key", ["1", "3"])
def test_without_colour(
    snap_compare: Any, results: Path, open_monitor: Open, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(open_monitor(make_run(results, "training")), terminal_size=(80, 24), run_before=pressing(key))
