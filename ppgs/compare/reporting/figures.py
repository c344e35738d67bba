"""The figures: one small function a figure, drawn for paper (SVG, PDF, PNG) or for the report (SVG that follows its
light or dark colours)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from ppgs.compare.model import Curve
from ppgs.compare.reporting.drawing import Drawing, Theme, colour_of, legend, scheme_label, scheme_of, style
from ppgs.compare.reporting.formats import task_label
from ppgs.compare.results import Comparison, RunResult, TaskResult
from ppgs.compare.statistics import Ranking

_POINTS = 250
# Dice that its axis spans at least: what is less is no difference worth a whole figure.
_LEAST_SPAN = 0.01


def drawings(comparison: Comparison) -> list[Drawing]:
    """Return all figures that the results allow, the widest view first."""
    found = [_differences(comparison)]
    if comparison.ranking is not None:
        found.append(_critical_difference(comparison, comparison.ranking))
    found += [d for d in (_pareto(comparison, *cost) for cost in _COSTS) if d]
    for task in comparison.tasks:
        found += [d for d in (_seeds(comparison, task), _convergence(comparison, task), *_cases(comparison, task)) if d]
    return found


def _differences(comparison: Comparison) -> Drawing:
    rows = [(task, pair) for task in comparison.tasks for pair in task.pairs]
    return Drawing(
        name="differences",
        title="Difference from the baseline",
        caption=(
            "Mean paired difference of a case's Dice with its 95 % bootstrap interval. The shaded band is the "
            f"non-inferiority margin of ±{comparison.margin:g}."
        ),
        size=(7.2, 1.0 + 0.3 * len(rows)),
        draw=partial(_draw_differences, comparison),
    )


def _draw_differences(comparison: Comparison, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    rows = [(task, pair) for task in comparison.tasks for pair in task.pairs]
    many_tasks, many_runs = len(comparison.tasks) > 1, any(len(t.pairs) > 1 for t in comparison.tasks)
    labels, drawn = [], set()
    for y, (task, pair) in enumerate(rows):
        label = comparison.label(pair.run.run)
        colour = colour_of(comparison, pair.run.run.training)
        s = pair.statistics
        axes.plot(s.ci95, (y, y), color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(
            s.mean_difference, y, "o", color=colour, markersize=6, label=None if label in drawn else label, zorder=3
        )
        drawn.add(label)
        labels.append(
            task_label(task.task)
            if many_tasks and not many_runs
            else (f"{task_label(task.task)} · {label}" if many_tasks else label)
        )
    axes.axvspan(-comparison.margin, comparison.margin, color=theme.faint, alpha=0.16, linewidth=0)
    axes.axvline(0, color=theme.ink, linewidth=0.9)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    baseline = comparison.labels.get(comparison.baseline, comparison.baseline)
    axes.set_xlabel(f"Dice, run minus {baseline}")
    style(axes, theme, grid="x")
    axes.spines["left"].set_visible(False)
    if many_tasks:
        legend(figure, axes, theme)


def _critical_difference(comparison: Comparison, ranking: Ranking) -> Drawing:
    return Drawing(
        name="critical_difference",
        title="Mean ranks",
        caption=(
            f"Mean rank over {ranking.tasks} tasks (1 is best). Trainings joined by a bar do not differ at 5 % "
            f"(Nemenyi; critical difference {ranking.critical_difference:.2f} ranks)."
        ),
        size=(7.2, 1.3 + 0.28 * math.ceil(len(ranking.mean_ranks) / 2)),
        draw=partial(_draw_ranks, comparison, ranking),
    )


def cliques(ranking: Ranking) -> list[tuple[float, float]]:
    """Return maximal spans of mean ranks within one critical difference, of two trainings or more."""
    ranks = sorted(ranking.mean_ranks.values())
    spans: list[tuple[float, float]] = []
    for i, low in enumerate(ranks):
        high = max(r for r in ranks[i:] if r - low <= ranking.critical_difference)
        if high > low and not any(a <= low and high <= b for a, b in spans):
            spans.append((low, high))
    return spans


def _draw_ranks(comparison: Comparison, ranking: Ranking, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    count = len(ranking.mean_ranks)
    ordered = sorted(ranking.mean_ranks.items(), key=lambda item: item[1])
    spans = cliques(ranking)
    half = math.ceil(count / 2)
    base = -0.35 * len(spans) - 0.4
    axes.plot((1, count), (0, 0), color=theme.ink, linewidth=1)
    for tick in range(1, count + 1):
        axes.plot((tick, tick), (0, 0.12), color=theme.ink, linewidth=1)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8, color=theme.ink)
    pad = 0.1 * (count - 1) or 0.2
    for index, (name, value) in enumerate(ordered):
        left = index < half
        y = base - 0.45 * (index if left else count - 1 - index)
        edge = 1 - pad if left else count + pad
        axes.plot((value, value, edge), (0, y, y), color=theme.faint, linewidth=0.9)
        axes.plot(value, 0, "o", color=colour_of(comparison, name), markersize=6, zorder=3)
        label = comparison.labels.get(name, name)
        text = f"{label}  {value:.2f}" if left else f"{value:.2f}  {label}"
        axes.text(
            edge + (-0.02 if left else 0.02) * count, y, text, ha="right" if left else "left", va="center",
            fontsize=8.5, color=theme.ink,
        )  # fmt: skip
    for index, (low, high) in enumerate(spans):
        y = -0.22 - 0.35 * index
        axes.plot(
            (low - 0.01 * count, high + 0.01 * count), (y, y), color=theme.ink, linewidth=4, solid_capstyle="butt"
        )
    axes.set_xlim(1 - pad - 0.9 * (count - 1) - 0.3, count + pad + 0.9 * (count - 1) + 0.3)
    axes.set_ylim(base - 0.45 * half + 0.1, 0.7)
    axes.axis("off")


_COSTS: tuple[tuple[str, str, str, Callable[[RunResult], float | None], str], ...] = (
    ("hours", "time", "training time per fold, hours", lambda r: _per_fold(r, r.cost.seconds, 3600), "time_ratio"),
    ("kwh", "energy", "energy per fold, kWh", lambda r: _per_fold(r, r.cost.energy_kwh), "energy_ratio"),
)


def _per_fold(result: RunResult, total: float | None, unit: float = 1) -> float | None:
    return None if total is None else total / unit / len(result.run.folds)


def _pareto(
    comparison: Comparison,
    name: str,
    what: str,
    axis: str,
    figure_of: Callable[[RunResult], float | None],
    ratio: str,
) -> Drawing | None:
    many = len(comparison.tasks) > 1
    known = (
        any(getattr(p, ratio) for p in comparison.pairs)
        if many
        else sum(figure_of(r) is not None and not math.isnan(r.mean_dice) for r in comparison.runs) > 1
    )
    # Times of different sources are not comparable; over tasks there are only ratios, of one source each.
    sources = {r.cost.source for r in comparison.runs if r.cost.seconds is not None}
    if not known or (name == "hours" and not many and len(sources) > 1):
        return None
    caption = (
        f"Dice against {what}, both relative to the baseline (at the cross); small marks are tasks, large "
        "ones the mean over tasks. Up and left is better."
        if many
        else f"Mean Dice against {what} per fold. Up and left is better; the line joins what nothing beats on both."
    )
    draw = (
        partial(_draw_ratios, comparison, ratio, what) if many else partial(_draw_pareto, comparison, axis, figure_of)
    )
    return Drawing(f"pareto_{name}", f"Dice against {what}", caption, (4.6, 3.4), draw)


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, Dice) points that no other point beats or equals on both, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, dice in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not front or dice > front[-1][1]:
            front.append((cost, dice))
    return front


def _draw_pareto(
    comparison: Comparison, axis: str, figure_of: Callable[[RunResult], float | None], figure: Figure, theme: Theme
) -> None:
    axes = figure.add_subplot()
    points = []
    for result in comparison.runs:
        cost = figure_of(result)
        if cost is None or math.isnan(result.mean_dice):
            continue
        points.append((cost, result.mean_dice))
        axes.plot(
            cost, result.mean_dice, "o", color=colour_of(comparison, result.run.training), markersize=8, zorder=3,
            label=scheme_label(comparison, result.run.training),
        )  # fmt: skip
    front = pareto_front(points)
    axes.plot(*zip(*front, strict=True), color=theme.faint, linewidth=1, linestyle=(0, (4, 3)))
    costs, dice = zip(*points, strict=True)
    axes.set_xlim(0, 1.08 * max(costs))
    middle, half = (min(dice) + max(dice)) / 2, max(max(dice) - min(dice), _LEAST_SPAN) * 0.75
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlabel(axis)
    axes.set_ylabel("mean Dice")
    style(axes, theme)
    legend(figure, axes, theme)


def _draw_ratios(comparison: Comparison, ratio: str, what: str, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    axes.axhline(0, color=theme.ink, linewidth=0.9)
    axes.axvline(1, color=theme.ink, linewidth=0.9)
    for line in comparison.across:
        colour = colour_of(comparison, line.training)
        pairs = [p for p in comparison.pairs if p.run.run.training == line.training and getattr(p, ratio)]
        gains = [
            100 * (p.common_mean_dice / p.common_baseline_mean_dice - 1) if p.common_baseline_mean_dice else math.nan
            for p in pairs
        ]
        axes.plot([getattr(p, ratio) for p in pairs], gains, "o", color=colour, markersize=4, alpha=0.55)
        mean = getattr(line, ratio)
        if mean:
            label = comparison.labels[line.training]
            axes.plot(mean, line.mean_relative_gain, "D", color=colour, markersize=8, zorder=3, label=label)
    axes.set_xlabel(f"{what}, times the baseline's")
    axes.set_ylabel("relative gain in Dice, %")
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    style(axes, theme)
    if axes.get_legend_handles_labels()[0]:
        legend(figure, axes, theme)


def _seeds(comparison: Comparison, task: TaskResult) -> Drawing | None:
    if not task.seed_groups:
        return None
    return Drawing(
        name=f"seeds_{task.task}",
        title="Variance between seeds",
        caption="Mean Dice of every seed; the bar is the mean over seeds, the whisker one standard deviation.",
        size=(3.6, 1.2 + 0.5 * len(task.seed_groups)),
        draw=partial(_draw_seeds, comparison, task),
        task=task.task,
    )


def _draw_seeds(comparison: Comparison, task: TaskResult, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    for y, group in enumerate(task.seed_groups):
        colour = colour_of(comparison, group.runs[0].run.training)
        values = [r.mean_dice for r in group.runs]
        if not math.isnan(group.sd):
            axes.plot((group.mean_dice - group.sd, group.mean_dice + group.sd), (y, y), color=colour, linewidth=1.4)
        axes.plot((group.mean_dice,) * 2, (y - 0.22, y + 0.22), color=colour, linewidth=3)
        axes.plot(values, [y] * len(values), "o", color=colour, markersize=6, alpha=0.6)
    axes.set_yticks(range(len(task.seed_groups)), [g.name for g in task.seed_groups])
    axes.set_ylim(len(task.seed_groups) - 0.4, -0.6)
    axes.set_xlabel("mean Dice")
    style(axes, theme, grid="x")
    axes.spines["left"].set_visible(False)


def _convergence(comparison: Comparison, task: TaskResult) -> Drawing | None:
    curves = [f.curve for r in task.runs for f in r.run.folds if f.curve]
    if not curves:
        return None
    panels = 3 if any(c.kwh for c in curves) else 2
    return Drawing(
        name=f"convergence_{task.task}",
        title="Convergence",
        caption=(
            "Smoothed pseudo Dice of validation patches during training, one line a fold"
            + (", against epochs, hours and kWh" if panels == 3 else ", against epochs and hours")
            + ("; ticks below mark the first epoch of a stage." if any(c.stage_starts for c in curves) else ".")
        ),
        size=(7.2, 2.5),
        draw=partial(_draw_convergence, comparison, task, panels),
        task=task.task,
    )


def _draw_convergence(comparison: Comparison, task: TaskResult, panels: int, figure: Figure, theme: Theme) -> None:
    shared = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    horizontal: tuple[tuple[str, Callable[[Curve], tuple[float, ...]]], ...] = (
        ("epoch", lambda c: tuple(float(e + 1) for e in c.epochs)),
        ("hours", lambda c: tuple(s / 3600 for s in c.seconds)),
        ("kWh", lambda c: c.kwh),
    )
    for axes, (label, across) in zip(shared, horizontal, strict=False):
        for result in task.runs:
            colour = colour_of(comparison, result.run.training)
            for number, curve in enumerate(f.curve for f in result.run.folds if f.curve):
                x, y = across(curve), curve.dice
                if not x:
                    continue
                step = max(1, len(x) // _POINTS)
                axes.plot(
                    x[::step], y[::step], color=colour, linewidth=1.1, alpha=0.85,
                    label=scheme_label(comparison, result.run.training),
                )  # fmt: skip
                at = dict(zip(curve.epochs, x, strict=True))
                starts = [at[e] for e in curve.stage_starts if e in at]
                if number == 0 and starts:
                    axes.plot(
                        starts, [0.012] * len(starts), "|", color=colour, markersize=7,
                        transform=axes.get_xaxis_transform(),
                    )  # fmt: skip
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        style(axes, theme)
    shared[0].set_ylabel("pseudo Dice (smoothed)")
    legend(figure, shared[0], theme)


def _cases(comparison: Comparison, task: TaskResult) -> list[Drawing]:
    return [
        Drawing(
            name=f"cases_{task.task}" + (f"_{number}" if len(task.pairs) > 1 else ""),
            title=f"Case by case: {comparison.label(pair.run.run)}",
            caption=(
                "Each mark is a case: its Dice with the baseline and with the run. Above the diagonal the run is "
                f"better ({pair.statistics.wins} of {pair.statistics.cases} cases)."
            ),
            size=(3.4, 3.4),
            draw=partial(_draw_cases, comparison, pair.run, pair.baseline),
            task=task.task,
        )
        for number, pair in enumerate(task.pairs, 1)
        # Other seeds of the baseline are shown as variance between seeds.
        if scheme_of(comparison, pair.run.run.training) != scheme_of(comparison, pair.baseline.run.training)
    ]


def _draw_cases(comparison: Comparison, run: RunResult, baseline: RunResult, figure: Figure, theme: Theme) -> None:
    axes = figure.add_subplot()
    common = [c for c in run.per_case if c in baseline.per_case]
    x = np.asarray([baseline.per_case[c] for c in common])
    y = np.asarray([run.per_case[c] for c in common])
    low = max(0.0, min(x.min(), y.min()) - 0.03)
    high = min(1.0, max(x.max(), y.max()) + 0.01)
    axes.plot((low, high), (low, high), color=theme.ink, linewidth=0.9)
    size = 3.6 if len(common) > 60 else 5.5
    axes.plot(x, y, "o", color=colour_of(comparison, run.run.training), markersize=size, alpha=0.55, markeredgewidth=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"Dice, {comparison.label(baseline.run)}")
    axes.set_ylabel(f"Dice, {comparison.label(run.run)}")
    style(axes, theme)
