"""The monitor's notes on a schedule that departs from the papers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.widgets import DataTable

from ppgs.runs.manifest import Manifest
from ppgs.tui.widgets.manifest import _rows
from ppgs.tui.widgets.tables import fill

EXPLICIT = "stages: [{patch_size: [8, 8], batch_size: 2, epochs: 4}]\n"


def rows_of(schedule: str) -> dict[str, str]:
    request = {"task": "demo", "kind": "demo", "schedule": schedule, "schedule_name": "mine"}
    fields = {"name": "n", "task": "demo", "dataset": "d", "plans": "p", "configuration": "2d", "fold": 0}
    return dict(_rows(Manifest.model_validate({**fields, "trainer": "t", "schedule": "mine", "request": request})))


@pytest.mark.parametrize(
    ("schedule", "marked"),
    [
        ("mode: efficiency\n", {}),
        ("mode: efficiency\ngrowth: axis\npacing: equal\nstart: smallest\n", {}),
        ("mode: efficiency\npacing: {power: 0.5}\nlast_stage: 0.3\n", {"pacing": "power 0.5", "last stage": "0.3"}),
        ("mode: efficiency\nstart: [8, 16]\ngrowth: octave\n", {"start": "8 16", "growth": "octave"}),
        (
            "mode: efficiency\nlearning_rate: {decay: work, warmup: 2}\n",
            {"learning rate": "decays over the work done, after a warm-up of 2 epochs"},
        ),
        (EXPLICIT, {}),
        (EXPLICIT + "learning_rate: {decay: work}\n", {"learning rate": "decays over the work done"}),
        ("not a schedule", {}),
        ("", {}),
    ],
)
def test_choices_that_are_not_the_papers_are_marked(schedule: str, marked: dict[str, str]) -> None:
    rows = rows_of(schedule)
    names = ("growth", "start", "pacing", "last stage", "learning rate")
    assert {n: rows[n] for n in names if n in rows} == {n: f"{v}  (not the papers')" for n, v in marked.items()}


def test_brackets_of_paths_and_names_are_shown() -> None:
    class Shown(App[None]):
        def compose(self) -> ComposeResult:
            yield DataTable[Any]()

    async def check() -> None:
        app = Shown()
        async with app.run_test(size=(80, 10)) as pilot:
            table: DataTable[Any] = app.query_one(DataTable)
            fill(table, ("what", "value"), [("folder", "/data/[lab]/a[/x]")])
            await pilot.pause()
            assert "/data/[lab]/a[/x]" in "".join(strip.text for strip in table.render_lines(table.size.region))

    asyncio.run(check())
