"""The run's manifest as a table."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from ppgs.errors import ScheduleError
from ppgs.runs.manifest import Manifest
from ppgs.schedule import Schedule, parse
from ppgs.tui.view import Panel, View


class ManifestTable(DataTable[str], Panel):
    def on_mount(self) -> None:
        self.cursor_type = "row"
        self.show_header = False
        self.border_title = "run"
        self.add_columns("what", "value")
        self._rows_shown: list[tuple[str, str]] = []

    def draw(self, view: View) -> None:
        run = view.run
        rows = [("folder", str(run.run.path))]
        if run.manifest is not None:
            rows += _rows(run.manifest)
        if run.problem is not None:
            rows.append(("problem", run.problem))
        if rows != self._rows_shown:
            self._rows_shown = rows
            cursor = self.cursor_row
            self.clear()
            # As it is: paths and names may hold brackets.
            shown: list[Any] = [(name, Text(value)) for name, value in rows]
            self.add_rows(shown)
            self.move_cursor(row=cursor)


def _rows(manifest: Manifest) -> list[tuple[str, str]]:
    request = manifest.request
    rows: list[tuple[str, object]] = [
        ("name", manifest.name),
        ("task", f"{manifest.task}  ({manifest.dataset})"),
        ("configuration", f"{manifest.configuration} of {manifest.plans}"),
        ("fold", manifest.fold),
        ("schedule", f"{manifest.schedule}  {manifest.schedule_hash or ''}"),
        *((name.replace("_", " "), f"{value}  (not the papers')") for name, value in _own_choices(request.schedule)),
        ("asked for", ", ".join(f"{k} {v}" for k, v in _asked(request.model_dump()))),
        ("seed", manifest.seed),
        ("device", manifest.device),
        ("trainer", manifest.trainer),
        ("process", f"{manifest.pid} on {manifest.host}" if manifest.pid else None),
        ("created", _when(manifest.created)),
        ("changed", _when(manifest.updated)),
        *manifest.versions.items(),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


@lru_cache(maxsize=64)
def _own_choices(schedule: str) -> tuple[tuple[str, str], ...]:
    """Return the choices in a run's schedule text that depart from the papers; empty if it cannot be read."""
    try:
        content = parse(schedule)
    except ScheduleError:
        return ()
    if isinstance(content, Schedule):
        rate = content.learning_rate.text
        return () if rate is None else (("learning_rate", rate),)
    return tuple(content.own_choices.items())


def _asked(request: dict[str, object]) -> list[tuple[str, object]]:
    wanted = ("epochs", "budget", "until", "iterations", "batch_size", "gpu_memory", "device", "workers")
    return [(key, request[key]) for key in wanted if request.get(key) is not None]


def _when(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    except (OverflowError, ValueError, OSError):
        return "-"
