"""The report: one self-contained HTML file that opens offline. Builds the content; `page/` defines its form."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version as installed
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

import ppgs
from ppgs.compare.analysis.verdict import p_text, signed
from ppgs.compare.loading.cost import SOURCE_NAMES
from ppgs.compare.reporting.drawing import Drawing, colour_of, inline_svg, scheme_of
from ppgs.compare.reporting.figures import drawings
from ppgs.compare.reporting.formats import hours, interval, number, percent, task_label
from ppgs.compare.reporting.pictures import PREDICTION, REFERENCE, Picture
from ppgs.compare.reporting.report_tables import (
    LOOK,
    Cell,
    Column,
    Grid,
    Row,
    cases_table,
    classes_table,
    cost_table,
    ranking_table,
    seeds_table,
    summary_table,
)
from ppgs.compare.reporting.sentences import caveat_lines
from ppgs.compare.results import Comparison, Pair, RunResult, TaskResult
from ppgs.errors import BadInput
from ppgs.runs.atomic import write_text


def write_report(comparison: Comparison, pictures: Sequence[Picture], path: Path) -> None:
    """Write the report atomically; raises `BadInput` if it cannot be written."""
    try:
        write_text(path.absolute(), render(comparison, pictures))
    except OSError as problem:
        raise BadInput(f"the report cannot be written: {problem}", path) from None


def render(comparison: Comparison, pictures: Sequence[Picture] = ()) -> str:
    """Render the report as HTML text."""
    page = files("ppgs.compare.reporting") / "page"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["breakable"] = _breakable
    template = environment.from_string((page / "report.html.j2").read_text(encoding="utf-8"))
    drawn = drawings(comparison)
    many = len(comparison.tasks) > 1
    content: dict[str, Any] = {
        "title": f"Comparison: {_heading(comparison)}",
        "heading": _heading(comparison),
        "subtitle": _subtitle(comparison),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "version": ppgs.__version__,
        "libraries": ", ".join(f"{name} {installed(name)}" for name in ("scipy", "numpy", "matplotlib")),
        "css": Markup((page / "report.css").read_text(encoding="utf-8")),  # noqa: S704  (our own file)
        "js": Markup((page / "report.js").read_text(encoding="utf-8")),  # noqa: S704  (our own file)
        "cards": _cards(comparison),
        "caveats": caveat_lines(comparison),
        "problems": [*comparison.left_out, *comparison.notes],
        "summary": summary_table(comparison),
        "summary_note": (
            f"Difference: mean over cases of run minus baseline, with the 95 % interval. p: Wilcoxon signed-rank, "
            f"corrected by Holm over all {len(comparison.pairs)} comparisons. Margin ±{comparison.margin:g}. "
            "Click a heading to sort."
        ),
        "ranking": ranking_table(comparison),
        "ranking_note": "Wins and losses by mean Dice on common cases; clear ones by test and interval. Gain: mean "
        "over tasks of the relative difference in Dice. Ratios: means over tasks.",
        "figures": [_figure(d) for d in drawn if d.task is None],
        "tasks": [
            _task(comparison, task, pictures, [_figure(d) for d in drawn if d.task == task.task])
            for task in comparison.tasks
        ],
        "reference_colour": REFERENCE,
        "prediction_colour": PREDICTION,
        "cost": cost_table(comparison),
        "cost_note": _cost_note(comparison),
        "provenance": [_provenance(comparison, r, many) for r in comparison.runs],
        "method": _method(comparison),
        "sections": [
            ("verdict", "Verdict"), ("results", "Results"), ("figures", "Figures"),
            ("tasks", "Tasks" if many else "In detail"), ("cost", "Cost"), ("provenance", "What was run"),
            ("method", "Method"),
        ],
    }  # fmt: skip
    return template.render(content)


def _breakable(text: str) -> Markup:
    """Add places where a long name may break: after `_` and before a capital."""
    if len(text) <= 12:
        return escape(text)
    return Markup("<wbr>").join(re.split(r"(?<=[_/])|(?<=[a-z])(?=[A-Z])", text))


def _figure(drawing: Drawing) -> dict[str, Any]:
    width = drawing.size[0]
    return {
        "title": drawing.title,
        "caption": drawing.caption,
        "kind": "third" if width < 4 else "half" if width < 6 else "wide" if drawing.task else "whole",
        "svg": Markup(inline_svg(drawing)),  # noqa: S704  (text in it is escaped by Matplotlib)
    }


def _heading(comparison: Comparison) -> str:
    schemes = dict.fromkeys(scheme_of(comparison, r.run.training) for r in comparison.runs)
    baseline = scheme_of(comparison, comparison.baseline)
    others = [comparison.labels[s] for s in schemes if s != baseline] or ["other seeds"]
    against = comparison.labels[baseline]
    return f"{' and '.join(others) if len(others) <= 2 else f'{len(others)} trainings'} against {against}"


def _subtitle(comparison: Comparison) -> str:
    cases = sum(len(t.baseline.per_case) for t in comparison.tasks)
    tasks = comparison.tasks
    where = task_label(tasks[0].task) if len(tasks) == 1 else f"{len(tasks)} tasks"
    folds = sorted({len(r.run.fold_names) for r in comparison.runs if r.run.fold_names})
    text = f"{where}, {cases:,} cases"
    if folds:
        span = str(folds[0]) if len(folds) == 1 else f"{folds[0]} to {folds[-1]}"
        text += f", {span} fold{'' if folds == [1] else 's'}"
    seeds = {len(g.runs) for t in tasks for g in t.seed_groups}
    return f"{text}, {max(seeds)} seeds" if seeds else text


def _cards(comparison: Comparison) -> list[dict[str, Any]]:
    if comparison.across:
        return [
            {
                "title": comparison.labels.get(a.training, a.training),
                "swatch": colour_of(comparison, a.training),
                "outcome": "",
                "badge": "",
                "facts": [
                    ("Mean relative gain", percent(a.mean_relative_gain),
                     f"95 % CI {signed(a.relative_gain_ci95[0], 2)} to {signed(a.relative_gain_ci95[1], 2)} %"),
                    ("Higher Dice", f"{a.wins} of {a.tasks}", f"clearly: {a.clear_wins}"),
                    ("Lower Dice", f"{a.losses} of {a.tasks}", f"clearly: {a.clear_losses}"),
                    ("Not worse by the margin", f"{a.not_worse} of {a.tasks}", f"margin {comparison.margin:g}"),
                    *_ratio_facts(a.time_ratio, a.energy_ratio, ", mean over tasks"),
                ],
                "sentence": a.verdict,
            }
            for a in comparison.across
        ]  # fmt: skip
    cards = []
    for task in comparison.tasks:
        for seeds in task.seed_pairs:
            s = seeds.statistics
            cards.append(
                {
                    "title": f"{seeds.group.name}, {len(seeds.group.runs)} seeds",
                    "swatch": colour_of(comparison, seeds.group.runs[0].run.training),
                    "outcome": LOOK[seeds.verdict.outcome],
                    "badge": seeds.verdict.outcome,
                    "facts": [
                        ("Difference in Dice", signed(s.mean_difference),
                         f"95 % CI {interval(seeds.ci95_seeds)}"),
                        ("Between seeds", f"± {number(seeds.group.sd, 4)}",
                         f"{seeds.baseline.name}: ± {number(seeds.baseline.sd, 4)}"),
                        ("Holm p", p_text(seeds.wilcoxon_p_holm), f"{s.cases} cases"),
                        *_ratio_facts(seeds.time_ratio, seeds.energy_ratio, ", mean over seeds"),
                    ],
                    "sentence": seeds.verdict.sentence,
                }
            )  # fmt: skip
        if not task.seed_pairs:
            cards += [_pair_card(comparison, p) for p in task.pairs]
    return cards


def _pair_card(comparison: Comparison, pair: Pair) -> dict[str, Any]:
    s = pair.statistics
    facts = [
        ("Difference in Dice", signed(s.mean_difference), f"95 % CI {interval(s.ci95)}"),
        ("Holm p", p_text(pair.wilcoxon_p_holm), f"effect r {signed(s.rank_biserial, 2)}"),
        ("Better on", f"{s.wins} of {s.cases}", f"worse on {s.losses}"),
        *_ratio_facts(pair.time_ratio, pair.energy_ratio, ""),
    ]
    if pair.reached_baseline and pair.reached_baseline.seconds is not None:
        reached = pair.reached_baseline
        share = f"{100 * reached.share_of_baseline:.0f} % of its time" if reached.share_of_baseline is not None else ""
        facts.append(
            ("To the baseline's Dice", hours(reached.seconds), f"{share}; {reached.reached} of {reached.folds} folds")
        )
    return {
        "title": comparison.label(pair.run.run),
        "swatch": colour_of(comparison, pair.run.run.training),
        "outcome": LOOK[pair.verdict.outcome],
        "badge": pair.verdict.outcome,
        "facts": facts,
        "sentence": pair.verdict.sentence,
    }


def _ratio_facts(time_ratio: float | None, energy_ratio: float | None, note: str) -> list[tuple[str, str, str]]:
    found = []
    for name, value in (("Time", time_ratio), ("Energy", energy_ratio)):
        if value is not None:
            found.append((name, f"{100 * value:.0f} %", f"of the baseline's{note}"))
    return found


def _task(
    comparison: Comparison, task: TaskResult, pictures: Sequence[Picture], drawn: list[dict[str, Any]]
) -> dict[str, Any]:
    many = len(comparison.tasks) > 1
    groups = []
    for result in task.runs:
        mine = [p for p in pictures if p.task == task.task and p.run == result.run.name]
        if mine:
            groups.append({"run": comparison.label(result.run), "pictures": [_picture(p) for p in mine]})
    return {
        "name": task_label(task.task),
        "line": " · ".join(f"{comparison.label(r.run)} {number(r.mean_dice, 4)}" for r in task.runs[:3]),
        "sentences": [p.verdict.sentence for p in (task.seed_pairs or task.pairs)] if many else [],
        "seeds": seeds_table(task),
        "classes": classes_table(comparison, task),
        "cases": cases_table(comparison, task),
        "figures": drawn,
        "pictures": groups,
    }


def _picture(picture: Picture) -> dict[str, str]:
    axis = {0: "axial", 1: "coronal", 2: "sagittal"}.get(picture.slice_axis, "")
    return {
        "data": base64.b64encode(picture.png).decode("ascii"),
        "which": picture.which,
        "case": picture.case,
        "dice": number(picture.dice, 4),
        "slice": f"{axis} slice {picture.slice_index}" if axis else "",
        "alt": f"{picture.which} case {picture.case}: contours of reference and prediction",
    }


def _cost_note(comparison: Comparison) -> str:
    sources = sorted({SOURCE_NAMES[r.cost.source] for r in comparison.runs if r.cost.source})
    bases = sorted({r.cost.co2_basis for r in comparison.runs if r.cost.co2_basis})
    parts = ["Sums over all folds; nothing is shown where a fold does not tell."]
    if sources:
        parts.append(f"Time: {', '.join(sources)}.")
    if bases:
        parts.append(f"CO2 is an estimate: energy times carbon intensity ({', '.join(bases)}).")
    if any(r.cost.energy_kwh is not None for r in comparison.runs):
        parts.append(
            "Of the energy, the GPU's comes from its counters; the memory's and, without counters, the CPU's is "
            "modelled."
        )
    return " ".join(parts)


def _provenance(comparison: Comparison, result: RunResult, many: bool) -> dict[str, Any]:
    run, p = result.run, result.run.provenance
    facts = [
        ("Trainer", p.trainer), ("Plans", p.plans), ("Configuration", p.configuration), ("Schedule", p.schedule),
        ("Schedule hash", p.schedule_hash), ("Seed", None if p.seed is None else str(p.seed)),
        ("Folds", ", ".join(run.fold_names) or None), ("Device", p.device), ("Host", p.host), ("Hardware", p.hardware),
        ("Versions", ", ".join(f"{k} {v}" for k, v in p.versions.items()) or None), ("Folder", str(p.path)),
    ]  # fmt: skip
    name = run.name if not many else f"{task_label(run.task)} · {run.name}"
    stages = None
    if p.stages:
        columns = (Column("Stage", True), Column("Patch size"), Column("Batch", True), Column("Epochs", True))
        stages = Grid(
            columns,
            tuple(
                Row(
                    (
                        Cell(str(i)),
                        Cell(" × ".join(map(str, s.patch_size))),
                        Cell(str(s.batch_size)),
                        Cell(str(s.epochs)),
                    )
                )
                for i, s in enumerate(p.stages, 1)
            ),
        )
    return {
        "name": name,
        "swatch": colour_of(comparison, run.training),
        "facts": [(k, v) for k, v in facts if v],
        "stages": stages,
    }


def _method(comparison: Comparison) -> Iterable[str]:
    yield (
        "Cross-validation is pooled as nnU-Net accumulates it: a class's Dice is the mean over all cases of all folds, "
        "the mean Dice that of the foreground classes. A case that lacks a class in reference and prediction does not "
        "count for it."
    )
    yield (
        "Paired tests use each case's mean over its foreground classes, on the cases that both runs have: Wilcoxon "
        "signed-rank, two-sided; p-values corrected by Holm over all pairs and tasks; 95 % intervals of the mean by "
        "bootstrap over cases (BCa, 9,999 resamples, fixed seed), not corrected for their number."
    )
    yield (
        "Better or worse is claimed only where the corrected test and the interval agree and the mean Dice does not "
        "differ the other way. Not worse: the whole interval and the difference of mean Dice are above "
        f"−{comparison.margin:g}. Effect r is the matched-pairs rank-biserial correlation."
    )
    if any(r.surface for r in comparison.runs):
        yield (
            f"Surface Dice at {comparison.tolerance_mm:g} mm and 95 % Hausdorff distance by surface-distance; a class "
            "that only one of reference and prediction has counts as 0 and as the image's diagonal."
        )
    if comparison.ranking:
        yield (
            "Over tasks: mean relative gain with a bootstrap interval over tasks, signed-rank test on the tasks' mean "
            "Dice, both pooled over the cases that the two have; mean ranks by mean Dice over the cases that all have, "
            "with the critical difference of Nemenyi's test."
        )
    yield (
        "Convergence and the time to the baseline's Dice use nnU-Net's pseudo Dice of validation patches, smoothed "
        "over epochs, not the Dice of whole cases."
    )
