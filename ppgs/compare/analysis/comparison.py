"""Runs into a comparison: groups them by task, computes every figure, judges every pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ppgs.compare.analysis.across import over_tasks, rank_trainings
from ppgs.compare.analysis.comparable import Findings, comparable, refuse
from ppgs.compare.analysis.run_cost import co2_of, common_folds, quotient, ratio_on, reached_baseline, total_cost
from ppgs.compare.analysis.seeds import compare_seed_groups, group_seeds
from ppgs.compare.analysis.verdict import basis, caveats, decide, non_inferior, sentence
from ppgs.compare.loading.cost import SOURCE_NAMES, carbon_intensity, own_source, shared_source
from ppgs.compare.loading.sources import short_labels
from ppgs.compare.model import Run
from ppgs.compare.results import (
    Comparison,
    Pair,
    RunResult,
    Surface,
    TaskResult,
    Verdict,
)
from ppgs.compare.statistics import Paired, case_means, holm, nan_mean, paired, pooled_dice
from ppgs.errors import BadInput


@dataclass(frozen=True)
class Settings:
    """Settings: `margin` in Dice, `tolerance_mm` of the surface Dice, carbon intensity in kg CO2eq per kWh."""

    baseline: str
    margin: float = 0.005
    tolerance_mm: float = 2.0
    country: str | None = None
    kg_per_kwh: float | None = None
    keep_going: bool = False

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


def compare(runs: Sequence[Run], settings: Settings, surfaces: MeasureSurfaces | None = None) -> Comparison:
    """Compare all runs of every task with the task's baseline.

    Raises `BadInput` with every reason where no task has two runs that can be compared, and, unless
    `settings.keep_going`, where some run has no counterpart, other classes or no common cases.
    """
    found = Findings()
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    checked = {task: comparable(task, members, settings.baseline, found) for task, members in by_task.items()}
    usable = {task: kept for task, kept in checked.items() if kept}
    if not usable or (found.problems and not settings.keep_going):
        refuse(found.problems, usable)
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


def _draft(
    runs: list[Run],
    settings: Settings,
    intensity: float | None,
    surfaces: MeasureSurfaces | None,
    found: Findings,
) -> list[RunResult]:
    source = shared_source([f.cost for f in run.folds] for run in runs)
    results = []
    timed: dict[str, list[str]] = {}
    for run in runs:
        own = source or own_source(f.cost for f in run.folds)
        if own:
            timed.setdefault(own, []).append(run.name)
        surface = None
        if surfaces is not None:
            surface, notes = surfaces(run)
            found.notes += notes
        results.append(_result(run, own, settings, intensity, surface))
    if len(timed) > 1:
        sources = "; ".join(f"{SOURCE_NAMES[own]} for {', '.join(names)}" for own, names in timed.items())
        found.notes.append(
            f"{runs[0].task}: times are from different sources ({sources}); no ratio is given between these"
        )
    return results


def _result(
    run: Run, source: str | None, settings: Settings, intensity: float | None, surface: Surface | None
) -> RunResult:
    keys = run.class_keys
    per_class = pooled_dice(run.cases, keys)
    per_case = case_means(run.cases, keys)
    return RunResult(
        run=run,
        mean_dice=nan_mean(list(per_class.values())),
        dice_per_class=per_class,
        per_case=per_case,
        cost=total_cost([f.cost for f in run.folds], source, intensity, settings.co2_basis),
        surface=surface,
    )


def _judged(drafts: Sequence[list[RunResult]], settings: Settings, labels: dict[str, str]) -> list[TaskResult]:
    """Return all pairs of all tasks, their p-values corrected together."""
    paired_up: list[tuple[RunResult, RunResult, Paired]] = []
    for results in drafts:
        for result in results[1:]:
            paired_up.append((result, results[0], _paired(result, results[0], settings.margin)))
    adjusted = holm([s.wilcoxon_p for _, _, s in paired_up])
    pairs: dict[str, list[Pair]] = {}
    for (result, baseline, statistics), p in zip(paired_up, adjusted, strict=True):
        pairs.setdefault(result.run.task, []).append(_pair(result, baseline, statistics, p, settings, labels))
    groups = {results[0].run.task: group_seeds(results[0].run.task, results) for results in drafts}
    seed_pairs = compare_seed_groups(groups.values(), settings.margin)
    return [
        TaskResult(
            task=task,
            runs=tuple(results),
            pairs=tuple(pairs[task]),
            seed_groups=groups[task],
            seed_pairs=tuple(p for p in seed_pairs if p.task == task),
        )
        for task, results in zip(groups, drafts, strict=True)
    ]


def _differences(run: Mapping[str, float], baseline: Mapping[str, float]) -> list[float]:
    """Return run minus baseline for the cases that both have."""
    return [value - baseline[case] for case, value in run.items() if case in baseline]


def _paired(run: RunResult, baseline: RunResult, margin: float) -> Paired:
    differences = _differences(run.per_case, baseline.per_case)
    if not differences:
        raise BadInput(
            f"{run.run.name} and {baseline.run.name} have no common case with any foreground", run.run.provenance.path
        )
    return paired(differences, margin)


def _per_class(run: RunResult, baseline: RunResult, margin: float) -> dict[str, Paired]:
    found = {}
    for key in run.run.class_keys:
        mine, theirs = (case_means(result.run.cases, [key]) for result in (run, baseline))
        if differences := _differences(mine, theirs):
            found[key] = paired(differences, margin)
    return found


def _pair(
    run: RunResult, baseline: RunResult, statistics: Paired, p: float, settings: Settings, labels: dict[str, str]
) -> Pair:
    common = run.case_names & baseline.case_names
    mine, theirs = run.mean_dice_on(common), baseline.mean_dice_on(common)
    pooled = mine - theirs
    outcome = decide(statistics, p, settings.margin, pooled)
    names = labels.get(run.run.training, run.run.name), labels.get(baseline.run.training, baseline.run.name)
    text = sentence(outcome, *names, statistics, p, settings.margin, basis([run], [baseline], statistics))
    folds = common_folds(run.run, baseline.run)
    same_source = run.cost.source if run.cost.source == baseline.cost.source else None
    intensity = settings.intensity
    return Pair(
        task=run.run.task,
        run=run,
        baseline=baseline,
        statistics=statistics,
        wilcoxon_p_holm=p,
        common_mean_dice=mine,
        common_baseline_mean_dice=theirs,
        non_inferior=non_inferior(statistics, settings.margin, pooled),
        per_class=_per_class(run, baseline, settings.margin),
        time_ratio=ratio_on(folds, lambda c: c.seconds.get(same_source) if same_source else None),
        energy_ratio=ratio_on(folds, lambda c: c.energy_kwh),
        co2_ratio=ratio_on(folds, lambda c: co2_of(c, intensity)),
        flops_ratio=ratio_on(folds, lambda c: c.flops),
        memory_ratio=quotient(run.cost.peak_memory_bytes, baseline.cost.peak_memory_bytes),
        reached_baseline=reached_baseline(folds),
        verdict=Verdict(outcome, text, caveats([run], [baseline], statistics, p, settings.margin, pooled)),
    )
