"""The registry of columns: a statistic that is defined once appears in every medium."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ppgs.cli import compare_table
from ppgs.compare.reporting import columns, layouts
from ppgs.compare.reporting.column_types import Column, Shown, Table, columns_of, plain
from ppgs.compare.reporting.json_data import to_json
from ppgs.compare.reporting.report import render
from ppgs.compare.reporting.tables import to_csv, to_latex, to_markdown
from ppgs.compare.results import Comparison

GROUPS = ("RUN", "PAIR", "SEED_PAIR", "SEED_GROUP", "STANDING", "ACROSS")
TABLES = {
    name: (table, groups)
    for names, groups in (
        (("CSV", "TERMINAL", "TERMINAL_PAIRS", "PAPER", "SUMMARY", "SUMMARY_PAIRS", "COST"), columns.of_lines),
        (("TERMINAL_RANKING", "RANKING"), columns.of_standings),
        (("SEEDS",), columns.of_seed_groups),
    )
    for name in names
    for table in (getattr(layouts, name),)
}
Register = Callable[[str, "Column[Any]"], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    def add(group: str, column: Column[Any]) -> None:
        monkeypatch.setattr(columns, group, (*getattr(columns, group), column))

    return add


def on_terminal(comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "300")
    compare_table.show(comparison)
    return capsys.readouterr().out


@pytest.mark.parametrize("group", ["RUN", "PAIR"])
def test_a_column_of_runs_or_pairs_is_in_every_medium(
    two_tasks: Comparison,
    register: Register,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables: tuple[Table, ...] = (layouts.PAPER, layouts.SUMMARY, layouts.COST)
    shown: dict[Table, Shown | str] = dict.fromkeys(tables, "Made up")
    shown |= {layouts.CSV: "", layouts.TERMINAL: Shown("Made up", priority=4)}
    register(group, Column("made_up", lambda _: 0.123456, "~{:.2f}".format, shown=shown))

    content = to_json(two_tasks)
    assert [entry["made_up"] for entry in content["runs" if group == "RUN" else "pairs"]] == [0.123456] * (
        4 if group == "RUN" else 2
    )
    expected = ["0.123456"] * 4 if group == "RUN" else ["", "0.123456"] * 2
    assert [row["made_up"] for row in csv.DictReader(io.StringIO(to_csv(two_tasks)))] == expected
    shown_twice = 4 if group == "RUN" else 2
    markdown = to_markdown(two_tasks)
    assert markdown.splitlines()[0].endswith("| Made up |")
    assert markdown.count("| ~0.12 |") == shown_twice
    assert to_latex(two_tasks).count(r"& \textasciitilde{}0.12 \\") == shown_twice
    page = render(two_tasks)
    assert page.count("Made up</button>") == 2
    # The summary has one row per task, the table of costs one per run.
    assert page.count('data-v="0.123456">~0.12</td>') == 2 + shown_twice
    terminal = on_terminal(two_tasks, monkeypatch, capsys)
    assert terminal.count("Made up") == 1
    assert terminal.count("~0.12") == 2


def test_a_column_over_tasks_is_in_every_medium(
    two_tasks: Comparison, register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[Table, Shown | str] = {layouts.TERMINAL_RANKING: "Made up", layouts.RANKING: "Made up"}
    register("ACROSS", Column("made_up", lambda a: a.tasks / 3, "{:.2f}".format, shown=shown))
    assert to_json(two_tasks)["across_tasks"][0]["made_up"] == 2 / 3
    assert f'data-v="{2 / 3}">0.67</td>' in render(two_tasks)
    assert "Made up" in on_terminal(two_tasks, monkeypatch, capsys)


def test_a_column_over_seeds_is_in_every_medium(own: Comparison, register: Register) -> None:
    shown: dict[Table, Shown | str] = {layouts.SEEDS: "Made up"}
    register("SEED_GROUP", Column("made_up", lambda g: len(g.runs) / 3, "{:.2f}".format, shown=shown))
    register("SEED_PAIR", Column("made_up", lambda _: float("nan")))
    content = json.loads(json.dumps(to_json(own), allow_nan=False))
    assert [group["made_up"] for group in content["seeds"]] == [2 / 3] * 2
    assert [pair["made_up"] for pair in content["seed_pairs"]] == [None]
    assert render(own).count(f'data-v="{2 / 3}">0.67</td>') == 2


def test_a_narrow_terminal_keeps_the_columns_of_low_priority_numbers(
    two_tasks: Comparison, register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for priority, title in ((-1, "First"), (98, "Last")):
        shown: dict[Table, Shown | str] = {layouts.TERMINAL: Shown(title, priority=priority)}
        register("PAIR", Column(title, lambda _: "x" * 30, shown=shown))
    wide = on_terminal(two_tasks, monkeypatch, capsys)
    assert "First" in wide
    assert "Last" in wide
    monkeypatch.setenv("COLUMNS", "80")
    compare_table.show(two_tasks)
    narrow = capsys.readouterr().out
    assert "First" in narrow
    assert "Last" not in narrow


@pytest.mark.parametrize("group", GROUPS)
def test_json_keys_are_there_once(group: str) -> None:
    keys = Counter(column.key for column in getattr(columns, group))
    assert set(keys.values()) == {1}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_only_columns_that_it_shows_each_once(name: str) -> None:
    table, groups = TABLES[name]
    names = {"baseline": "a", "run": "b", "tolerance": "2"}
    found = [column.key for column in columns_of(table, groups(), names)]
    assert len(found) == len(set(found))
    known = set(found) | ({"baseline_mean_dice"} if name in ("TERMINAL", "SUMMARY") else set())
    assert known == set(table.order)


def test_values_for_json() -> None:
    assert plain({"a": (1, float("nan")), "b": [float("inf"), 2.5], "c": None, "d": "x", "e": True}) == {
        "a": [1, None],
        "b": [None, 2.5],
        "c": None,
        "d": "x",
        "e": True,
    }
