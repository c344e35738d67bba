"""Exports, figures and the report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.reporting import figures, tables
from ppgs.compare.reporting.drawing import PAPER, inline_svg, save_drawings
from ppgs.compare.reporting.formats import significant
from ppgs.compare.reporting.json_data import to_json
from ppgs.compare.reporting.report import render
from ppgs.compare.reporting.report_tables import cases_table, classes_table
from ppgs.compare.reporting.sentences import caveat_lines, verdict_lines
from ppgs.compare.results import Comparison
from ppgs.compare.statistics import Ranking
from ppgs.tasks import Roots
from tests.helpers import result_folders as rf


def test_json_has_the_keys_of_the_surface_and_no_nan(own: Comparison) -> None:
    content = json.loads(json.dumps(to_json(own), allow_nan=False))
    run, pair = content["runs"][0], content["pairs"][0]
    assert run.keys() >= {
        "name", "mean_dice", "dice_per_class", "cases", "folds", "seconds", "energy_kwh", "co2_kg",
    }  # fmt: skip
    assert pair.keys() >= {
        "run", "baseline", "cases", "mean_difference", "ci95", "wilcoxon_p", "wilcoxon_p_holm", "time_ratio",
        "energy_ratio",
    }  # fmt: skip
    assert content["baseline"] == run["name"] == pair["baseline"] == "constant-fold0"
    assert run["folds"] == [0]
    assert set(run["dice_per_class"]) == {"1", "2"}
    assert [s["seeds"] for s in content["seeds"]] == [[0, 1], [0, 1]]


def test_csv_has_a_row_a_run_unrounded(two_tasks: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(two_tasks))))
    assert len(rows) == 4
    for row, result in zip(rows, two_tasks.runs, strict=True):
        assert float(row["mean_dice"]) == result.mean_dice
    assert [bool(row["mean_difference"]) for row in rows] == [False, True, False, True]
    assert float(rows[1]["ci95_low"]) == two_tasks.pairs[0].statistics.ci95[0]


def test_markdown_is_one_table_with_equal_columns(two_tasks: Comparison) -> None:
    lines = [line for line in tables.to_markdown(two_tasks).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4
    assert f"{two_tasks.runs[0].mean_dice:.4f}" in lines[2]


def test_latex_has_equal_columns_and_escapes(two_tasks: Comparison) -> None:
    text = tables.to_latex(two_tasks)
    columns = re.search(r"begin\{tabular\}\{([lr]+)\}", text)
    assert columns is not None
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns[1]) - 1}
    assert r"Dataset778\_Se\_cond" in text
    assert not re.search(r"(?<!\\)[%_]", "\n".join(rows))
    assert not re.search(r"[−×–]", text)


def test_verdicts_and_caveats_in_words(two_tasks: Comparison) -> None:
    lines = verdict_lines(two_tasks)
    assert lines[0].startswith("Over 2 tasks")
    assert len(lines) == 3
    assert sum("another seed" in c for c in caveat_lines(two_tasks)) == 1


def test_a_caveat_names_the_runs_that_it_applies_to(tmp_path: Path) -> None:
    third = "nnUNetTrainer__nnUNetResEncUNetLPlans__3d_fullres"
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(2)}
    models = [rf.write_model(tmp_path, m, folds) for m in (rf.PLAIN, rf.OTHER)]
    models.append(rf.write_model(tmp_path, third, {"1": folds["1"]}))
    caveats = caveat_lines(compare(CompareRequest(tuple(map(str, models)), Roots.under(tmp_path))))
    assert "nnUNetResEncUNetLPlans: one fold only (fold 1)" in caveats
    assert sum(c.startswith("one training per fold") for c in caveats) == 1
    assert len(caveats) == 3


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (12.345, "12.3"), (0.0012345, "0.00123"), (0.0, "0"), (None, "–")]
)
def test_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


@pytest.mark.slow
def test_figures_are_drawn_and_saved_for_papers(own: Comparison, tmp_path: Path) -> None:
    names = [d.name for d in figures.drawings(own)]
    assert {"differences", "pareto_hours", "pareto_kwh", f"seeds_{rf.TASK}", f"convergence_{rf.TASK}"} <= set(names)
    written = save_drawings(figures.drawings(own), tmp_path / "figures")
    assert {p.suffix for p in written} == {".svg", ".pdf", ".png"}
    assert len(written) == 3 * len(names) == len({p.name for p in written})
    for path in written:
        starts = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}
        assert path.read_bytes().startswith(starts[path.suffix])


def test_inline_figures_are_xml_in_the_colours_of_the_page(two_tasks: Comparison) -> None:
    for drawing in figures.drawings(two_tasks):
        svg = inline_svg(drawing)
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
        assert "currentColor" in svg
        assert not any(placeholder in svg for placeholder in ("#010203", "#040506", "#070809", "#0a0b0c"))


def test_pareto_front() -> None:
    points = [(3.0, 0.8), (1.0, 0.7), (2.0, 0.9), (4.0, 0.95), (1.0, 0.6)]
    assert figures.pareto_front(points) == [(1.0, 0.7), (2.0, 0.9), (4.0, 0.95)]


def _hours_drawn(result: Comparison) -> list[float]:
    (drawing,) = (d for d in figures.drawings(result) if d.name == "pareto_hours")
    figure = Figure()
    drawing.draw(figure, PAPER)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "training time per fold, hours"
    return [float(np.ravel(line.get_xdata())[0]) for line in axes.lines if line.get_marker() == "o"]


def test_cost_against_dice_is_that_of_a_fold(tmp_path: Path) -> None:
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(3)}
    a = rf.write_model(tmp_path, rf.PLAIN, folds, emissions=True)
    b = rf.write_model(tmp_path, rf.OTHER, {"0": folds["0"]}, emissions=True)
    result = compare(CompareRequest((str(a), str(b)), Roots.under(tmp_path)))
    assert [r.cost.seconds for r in result.runs] == [3 * 3600, 3600]
    assert _hours_drawn(result) == [1, 1]


def test_all_of_a_mark_is_inside_the_axes_and_tiny_differences_look_tiny(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": {f"c{i}": {"1": 0.9001} for i in range(3)}}, emissions=True)
    b = rf.write_model(tmp_path, rf.OTHER, {"0": {f"c{i}": {"1": 0.9003} for i in range(3)}}, emissions=True)
    result = compare(CompareRequest((str(a), str(b)), Roots.under(tmp_path)))
    (drawing,) = (d for d in figures.drawings(result) if d.name == "pareto_hours")
    figure = Figure(drawing.size)
    drawing.draw(figure, PAPER)
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(marks) == 2
    for mark in marks:
        ((x, y),) = axes.transData.transform(mark.get_xydata())
        radius = mark.get_markersize() / 2 * figure.dpi / 72
        assert axes.bbox.contains(x - radius, y - radius)
        assert axes.bbox.contains(x + radius, y + radius)
    low, high = axes.get_ylim()
    assert high - low >= 0.01


def test_times_of_different_sources_share_no_axis(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, emissions=True)
    b = rf.write_own_run(tmp_path, "constant", rf.random_cases(1))
    names = [d.name for d in figures.drawings(compare(CompareRequest((str(a), str(b.path)), Roots.under(tmp_path))))]
    assert "pareto_hours" not in names
    assert "pareto_kwh" in names


def test_cliques_of_the_critical_difference() -> None:
    ranking = Ranking({"a": 1.0, "b": 1.5, "c": 2.6, "d": 3.0}, 0.01, 1.2, 10)
    assert figures.cliques(ranking) == [(1.0, 1.5), (1.5, 2.6), (2.6, 3.0)]
    apart = Ranking({"a": 1.0, "b": 3.0}, 0.01, 0.5, 10)
    assert figures.cliques(apart) == []


class _Page(HTMLParser):
    """Parser of a page: external resources, identifiers, and unclosed elements."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img", "br", "wbr", "link", "input", "hr"):
            self.open.append(tag)
        if tag in ("link", "iframe") or (tag in ("img", "script") and values.get("src")):
            self.loads.append(values.get("src") or values.get("href") or tag)
        if tag == "a":
            self.links.append(values["href"])
        if tag == "section":
            self.ids.append(values["id"])

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["two_tasks", "own"])
def test_report_is_whole_and_needs_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    comparison: Comparison = request.getfixturevalue(which)
    text = render(comparison)
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.loads == []
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import", text)
    for run in comparison.runs:
        assert f"{run.mean_dice:.4f}" in text
    assert text.count("<svg") == len(figures.drawings(comparison))


def test_a_class_in_one_case_has_no_interval(tmp_path: Path) -> None:
    folds: dict[str, Any] = {k: {f"{k}{c}": d for c, d in rf.random_cases(int(k)).items()} for k in "01"}
    for i, dice in enumerate(d for cases in folds.values() for d in cases.values()):
        dice["2"] = 0.5 if i == 3 else math.nan
    models = [rf.write_model(tmp_path, m, folds) for m in (rf.PLAIN, rf.OTHER)]
    result = compare(CompareRequest(tuple(map(str, models)), Roots.under(tmp_path)))
    (organ, lesion) = (row.cells[-1].text for row in classes_table(result, result.tasks[0]).rows)
    assert organ == "0.0000 (0.0000 to 0.0000)"
    assert lesion == "0.0000 (1 case)"


def test_cases_are_sorted_by_fold(tmp_path: Path) -> None:
    folds = {k: {f"{k}{c}": d for c, d in rf.random_cases(int(k)).items()} for k in "01"}
    models = [rf.write_model(tmp_path, m, folds) for m in (rf.PLAIN, rf.OTHER)]
    result = compare(CompareRequest(tuple(map(str, models)), Roots.under(tmp_path)))
    rows = [row.cells for row in cases_table(result, result.tasks[0]).rows]
    assert [cells[1].value for cells in rows] == [float(cells[0].text[0]) for cells in rows] == [0] * 12 + [1] * 12


def test_report_escapes_what_it_shows(tmp_path: Path) -> None:
    cases = {f"<script>alert({i})": d for i, d in enumerate(rf.random_cases(0).values())}
    evil = "nnUNetTrainer<b>__nnUNetPlans__3d_fullres"
    rf.write_model(tmp_path, rf.PLAIN, {"0": cases})
    rf.write_model(tmp_path, evil, {"0": cases})
    text = render(compare(CompareRequest((str(tmp_path),), Roots.under(tmp_path))))
    assert "<script>alert" not in text
    assert "nnUNetTrainer<b>" not in text


def test_report_shows_schedule_seed_and_pictures_of_our_runs(own: Comparison) -> None:
    text = render(own)
    for expected in ("16 × 16 × 16", "hash-efficiency", "Variance between seeds", "All 12 cases", "organ (1)"):
        assert expected in text
