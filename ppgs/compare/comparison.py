"""Runs into a comparison: groups them by task, computes every figure, judges every pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ppgs.compare.across import over_tasks, rank_trainings
from ppgs.compare.cost import SOURCE_NAMES, FoldCost, carbon_intensity, own_source, shared_source
from ppgs.compare.model import Fold, Run
from ppgs.compare.results import (
    Comparison,
    Pair,
    ReachedBaseline,
    RunCost,
    RunResult,
    Surface,
    TaskResult,
    Verdict,
)
from ppgs.compare.seeds import compare_seed_groups, group_seeds
from ppgs.compare.sources import short_labels
from ppgs.compare.statistics import Paired, bootstrap_mean, case_means, finite, holm, nan_mean, paired, pooled_dice
from ppgs.compare.verdict import basis, caveats, decide, non_inferior, sentence
from ppgs.errors import BadInput, Problem


@dataclass(frozen=True)
class Settings:
    """How to compare. `margin` in Dice, `tolerance_mm` of the surface Dice, carbon intensity in kg CO2eq per kWh."""

    baseline: str
    margin: float = 0.005
    tolerance_mm: float = 2.0
    country: str | None = None
    kg_per_kwh: float | None = None
    keep_going: bool = False
    reference_folders: tuple[Path, ...] = ()

    @property
    def intensity(self) -> float | None:
        if self.kg_per_kwh is not None:
            return self.kg_per_kwh
        return carbon_intensity(self.country) if self.country else None

    @property
    def co2_basis(self) -> str | None:
        if self.kg_per_kwh is not None:
            return f"{1000 * self.kg_per_kwh:g} g/kWh"
        return self.country.upper() if self.country else None


MeasureSurfaces = Callable[[Run], tuple[Surface | None, list[str]]]


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(runs: Sequence[Run], settings: Settings, surfaces: MeasureSurfaces | None = None) -> Comparison:
    """Compare all runs of every task with the task's baseline.

    Raises `BadInput` with every reason where no task has two runs that can be compared, and, unless
    `settings.keep_going`, where some run has no counterpart, other classes or no common cases.
    """
    found = _Findings()
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    usable = {task: kept for task, members in by_task.items() if (kept := _comparable(task, members, settings, found))}
    if not usable or (found.problems and not settings.keep_going):
        _refuse(found.problems, usable)
    intensity = settings.intensity
    drafts = [_draft(members, settings, intensity, surfaces, found) for members in usable.values()]
    labels = short_labels(list(dict.fromkeys(run.training for members in usable.values() for run in members)))
    tasks = _judged(drafts, settings, labels)
    return Comparison(
        baseline=settings.baseline,
        tasks=tuple(tasks),
        across=over_tasks(tasks, labels),
        ranking=rank_trainings(tasks),
        labels=labels,
        margin=settings.margin,
        tolerance_mm=settings.tolerance_mm,
        notes=tuple(found.notes),
        left_out=tuple(f"{p.where}: {p.what}" for p in found.problems),
    )


def _refuse(problems: Sequence[Problem], usable: dict[str, list[Run]]) -> None:
    rest = "; ".join(f"{task}: {', '.join(r.name for r in members)}" for task, members in usable.items())
    still = f"what can still be compared, with --keep-going: {rest}" if rest else "nothing is left that can be compared"
    if not problems:
        raise BadInput("there are no two runs of one task to compare", "compare", "give two or more runs of a task")
    raise BadInput(
        f"{problems[0].what}" if len(problems) == 1 else "not everything given can be compared",
        problems=[*problems[:-1], replace(problems[-1], remedy="; ".join(filter(None, (problems[-1].remedy, still))))],
    )


def _comparable(task: str, runs: list[Run], settings: Settings, found: _Findings) -> list[Run]:
    """The runs of a task that can be compared, the baseline first; empty for fewer than two."""
    baseline = next((r for r in runs if r.training == settings.baseline), None)
    if len(runs) < 2 or baseline is None:
        missing = f"the baseline '{settings.baseline}'" if baseline is None else "a second run"
        found.problems.append(
            Problem(
                f"task {task} has only {', '.join(r.name for r in runs)}: {missing} of the same task is missing",
                str(runs[0].provenance.path),
                "give runs of the same task, or another --baseline",
            )
        )
        return []
    kept = [baseline]
    for run in runs:
        if run is baseline:
            continue
        common_classes = [key for key in baseline.classes if key in run.classes]
        if set(run.classes) != set(baseline.classes):
            found.problems.append(
                Problem(
                    f"{run.name} has classes {_listed(run)}, the baseline {baseline.name} has {_listed(baseline)}",
                    str(run.provenance.path),
                    f"in common: {', '.join(common_classes) or 'none'}; compare runs trained on the same labels",
                )
            )
            continue
        common = {c.case for c in run.cases} & {c.case for c in baseline.cases}
        if not common:
            found.problems.append(
                Problem(
                    f"{run.name} (folds {_folds(run)}) and {baseline.name} (folds {_folds(baseline)}) have no case in "
                    "common",
                    str(run.provenance.path),
                    "compare the same folds of the same task",
                )
            )
            continue
        _note_differences(task, run, baseline, common, found)
        kept.append(run)
    return kept if len(kept) > 1 else []


def _listed(run: Run) -> str:
    return ", ".join(f"{key} ({name})" if name != key else key for key, name in run.classes.items())


def _folds(run: Run) -> str:
    return ", ".join(run.fold_names) or "none"


def _note_differences(task: str, run: Run, baseline: Run, common: set[str], found: _Findings) -> None:
    theirs = {c.case: c for c in baseline.cases}
    count = sum(1 for _ in run.cases)
    if len(common) < max(count, len(theirs)):
        found.notes.append(
            f"{task}: {run.name} has {count} cases, {baseline.name} {len(theirs)}; "
            f"tested on the {len(common)} in common"
        )
    if run.fold_names != baseline.fold_names and run.fold_names and baseline.fold_names:
        found.notes.append(
            f"{task}: {run.name} has folds {_folds(run)}, {baseline.name} {_folds(baseline)}; "
            "cost is compared on the folds that both have"
        )
    changed = [
        c.case
        for c in run.cases
        if c.case in theirs
        and any(
            voxels != theirs[c.case].reference_voxels.get(key, voxels) for key, voxels in c.reference_voxels.items()
        )
    ]
    if changed:
        found.notes.append(
            f"{task}: the references of {len(changed)} cases differ between {run.name} and {baseline.name} "
            f"(first: {changed[0]}); were they evaluated against the same labels?"
        )


def _draft(
    runs: list[Run],
    settings: Settings,
    intensity: float | None,
    surfaces: MeasureSurfaces | None,
    found: _Findings,
) -> list[RunResult]:
    source = shared_source([f.cost for f in run.folds] for run in runs)
    results = []
    for run in runs:
        own = source or own_source(f.cost for f in run.folds)
        if own and own != source:
            found.notes.append(
                f"{run.task}: the time of {run.name} is from {SOURCE_NAMES[own]}, others from elsewhere; "
                "no ratio of times is given"
            )
        surface = None
        if surfaces is not None:
            surface, notes = surfaces(run)
            found.notes += notes
        results.append(_result(run, own, settings, intensity, surface))
    return results


def _result(
    run: Run, source: str | None, settings: Settings, intensity: float | None, surface: Surface | None
) -> RunResult:
    import numpy as np

    keys = run.class_keys
    per_class = pooled_dice(run.cases, keys)
    per_case = case_means(run.cases, keys)
    values = np.asarray(list(per_case.values()) or [math.nan])
    return RunResult(
        run=run,
        mean_dice=nan_mean(list(per_class.values())),
        dice_per_class=per_class,
        per_case=per_case,
        case_ci95=bootstrap_mean(values),
        cost=_total_cost([f.cost for f in run.folds], source, settings, intensity),
        surface=surface,
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum, or None unless every fold has a value: a sum of some would look cheap."""
    known = [v for v in values if v is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def _co2(cost: FoldCost, intensity: float | None) -> float | None:
    if intensity is None:
        return cost.co2_kg
    return cost.energy_kwh * intensity if cost.energy_kwh is not None else None


def _total_cost(folds: Sequence[FoldCost], source: str | None, settings: Settings, intensity: float | None) -> RunCost:
    seconds = [c.seconds.get(source) if source else None for c in folds]
    gpus = [c.gpus if s is not None else None for c, s in zip(folds, seconds, strict=True)]
    gpu_seconds = _sum([s * n if s is not None and n else None for s, n in zip(seconds, gpus, strict=True)])
    co2 = _sum([_co2(c, intensity) for c in folds])
    countries = sorted({c.country for c in folds if c.country})
    memory = [c.peak_memory_bytes for c in folds if c.peak_memory_bytes is not None]
    return RunCost(
        seconds=_sum(seconds),
        source=source,
        gpu_hours=gpu_seconds / 3600 if gpu_seconds is not None else None,
        energy_kwh=_sum([c.energy_kwh for c in folds]),
        gpu_kwh=_sum([c.gpu_kwh for c in folds]),
        co2_kg=co2,
        co2_basis=None if co2 is None else settings.co2_basis or "/".join(countries) or None,
        flops=_sum([c.flops for c in folds]),
        peak_memory_bytes=max(memory) if memory else None,
    )


def _judged(drafts: Sequence[list[RunResult]], settings: Settings, labels: dict[str, str]) -> list[TaskResult]:
    """All pairs of all tasks, their p-values corrected together."""
    paired_up: list[tuple[RunResult, RunResult, Paired]] = []
    for results in drafts:
        for result in results[1:]:
            paired_up.append((result, results[0], _paired(result, results[0], settings.margin)))
    adjusted = holm([s.wilcoxon_p for _, _, s in paired_up])
    pairs: dict[str, list[Pair]] = {}
    for (result, baseline, statistics), p in zip(paired_up, adjusted, strict=True):
        pairs.setdefault(result.run.task, []).append(_pair(result, baseline, statistics, p, settings, labels))
    tasks = []
    for results in drafts:
        task = results[0].run.task
        groups = group_seeds(task, results)
        tasks.append(
            TaskResult(
                task=task,
                runs=tuple(results),
                pairs=tuple(pairs[task]),
                seed_groups=groups,
                seed_pairs=compare_seed_groups(groups, settings.margin) if groups else (),
            )
        )
    return tasks


def _paired(run: RunResult, baseline: RunResult, margin: float) -> Paired:
    differences = [value - baseline.per_case[case] for case, value in run.per_case.items() if case in baseline.per_case]
    if not differences:
        raise BadInput(
            f"{run.run.name} and {baseline.run.name} have no common case with any foreground", run.run.provenance.path
        )
    return paired(differences, margin)


def _per_class(run: RunResult, baseline: RunResult, margin: float) -> dict[str, Paired]:
    found = {}
    theirs = {c.case: c.dice for c in baseline.run.cases}
    for key in run.run.class_keys:
        differences = [
            difference
            for c in run.run.cases
            if c.case in theirs and not math.isnan(difference := c.dice[key] - theirs[c.case].get(key, math.nan))
        ]
        if differences:
            found[key] = paired(differences, margin)
    return found


def _pair(
    run: RunResult, baseline: RunResult, statistics: Paired, p: float, settings: Settings, labels: dict[str, str]
) -> Pair:
    outcome = decide(statistics, p, settings.margin)
    names = labels.get(run.run.training, run.run.name), labels.get(baseline.run.training, baseline.run.name)
    text = sentence(outcome, *names, statistics, p, settings.margin, basis(run, statistics))
    folds = _common_folds(run.run, baseline.run)
    same_source = run.cost.source if run.cost.source == baseline.cost.source else None
    intensity = settings.intensity
    return Pair(
        task=run.run.task,
        run=run,
        baseline=baseline,
        statistics=statistics,
        wilcoxon_p_holm=p,
        non_inferior=non_inferior(statistics, settings.margin),
        per_class=_per_class(run, baseline, settings.margin),
        time_ratio=_ratio(folds, lambda c: c.seconds.get(same_source) if same_source else None),
        energy_ratio=_ratio(folds, lambda c: c.energy_kwh),
        co2_ratio=_ratio(folds, lambda c: _co2(c, intensity)),
        flops_ratio=_ratio(folds, lambda c: c.flops),
        memory_ratio=_quotient(run.cost.peak_memory_bytes, baseline.cost.peak_memory_bytes),
        reached_baseline=_reached(folds),
        verdict=Verdict(outcome, text, caveats(run, baseline, statistics, p)),
    )


def _common_folds(run: Run, baseline: Run) -> list[tuple[Fold, Fold]]:
    theirs = {f.name: f for f in baseline.folds}
    return [(f, theirs[f.name]) for f in run.folds if f.name in theirs]


def _ratio(folds: Sequence[tuple[Fold, Fold]], figure: Callable[[FoldCost], float | None]) -> float | None:
    """Ratio of sums over the common folds; None unless both runs have the figure on all of them."""
    mine, theirs = (_sum([figure(pair[side].cost) for pair in folds]) for side in (0, 1))
    return _quotient(mine, theirs)


def _quotient(mine: float | None, theirs: float | None) -> float | None:
    return finite(mine / theirs) if mine is not None and theirs else None


def _reached(folds: Sequence[tuple[Fold, Fold]]) -> ReachedBaseline | None:
    """When the run's pseudo Dice first reached the baseline's final one, fold by fold."""
    seconds, shares, compared = [], [], 0
    for mine, theirs in folds:
        if mine.curve is None or theirs.curve is None or math.isnan(theirs.curve.final):
            continue
        compared += 1
        index = mine.curve.first_reaching(theirs.curve.final)
        if index is not None:
            seconds.append(mine.curve.seconds[index])
            shares.append(seconds[-1] / theirs.curve.seconds[-1] if theirs.curve.seconds[-1] else math.nan)
    if not compared:
        return None
    return ReachedBaseline(
        folds=compared,
        reached=len(seconds),
        seconds=nan_mean(seconds) if seconds else None,
        share_of_baseline=finite(nan_mean(shares)) if shares else None,
    )
