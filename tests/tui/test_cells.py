"""Room for names whose letters take two cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import DataTable

from ppgs.runs.folder import RunFolder
from ppgs.tui.cells import shortened
from ppgs.tui.widgets.runs import RunTable
from ppgs.tui.widgets.status_bar import StatusBar
from tests.tui.conftest import Open, drive, make_run, settled


@given(st.text(), st.integers(-5, 40))
def test_what_is_shortened_fits_and_keeps_its_ends(text: str, width: int) -> None:
    short, room = shortened(text, width), max(width, 3)
    assert cell_len(short) <= room
    if cell_len(text) <= room:
        assert short == text
    else:
        beginning, _, end = short.rpartition("…")
        assert text.startswith(beginning) and text.endswith(end)


def test_letters_of_two_cells() -> None:
    assert shortened("海马体分割训练", 14) == "海马体分割训练"
    assert shortened("海马体分割训练", 9) == "海马…训练"
    assert shortened("海马体分割训练", 8) == "海马…练"
    assert shortened("a long name", 7) == "a l…ame"


def named(run: RunFolder, name: str) -> RunFolder:
    run.manifest.write_text(run.manifest.read_text().replace("demo-efficiency-fold", name), encoding="utf-8")
    return run


@pytest.mark.parametrize("letters", [10, 60])
def test_wide_names_leave_room_for_the_status(results: Path, open_monitor: Open, letters: int) -> None:
    name = "海" * letters
    app = open_monitor(*(named(make_run(results, "training", fold=fold), name) for fold in (0, 1)))

    async def steps(pilot: Pilot[Any]) -> None:
        assert "▶ training" in app.main.query_one(StatusBar).render_line(0).text
        await pilot.press("8")
        await settled(pilot)
        table: DataTable[str] = app.main.query_one(RunTable)
        lines = [table.render_line(y).text for y in range(table.size.height)]
        row = next(line for line in lines if "training" in line)
        assert (f"{name}0" in row) == (letters == 10)

        assert table.virtual_size.width <= table.size.width

    drive(app, steps, size=(100, 24))
