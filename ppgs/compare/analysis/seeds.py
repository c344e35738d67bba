"""Trainings that differ only in their seed: how much of a difference is training noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ppgs.compare.analysis.run_cost import quotient, total
from ppgs.compare.analysis.verdict import basis, caveats, decide, sentence
from ppgs.compare.model import FoldCost, Run
from ppgs.compare.results import RunResult, SeedGroup, SeedPair, Verdict
from ppgs.compare.statistics import Floats, Paired, bootstrap_seeds, holm, paired
from ppgs.formatting import counted


def _scheme(run: Run) -> tuple[object, ...] | None:
    p = run.provenance
    if p.seed is None:
        return None
    trainer = re.sub(r"_seed\d+(?=_|$)", "", p.trainer or "")
    return p.plans, p.configuration, p.schedule, p.schedule_hash, trainer, run.fold_names


def group_seeds(task: str, runs: Sequence[RunResult]) -> tuple[SeedGroup, ...]:
    """Group runs with the same plans, configuration, schedule, trainer and folds, in the order of the runs.

    A run without siblings is its own group, so that it can be compared; empty where no group has two seeds.
    """
    schemes: dict[tuple[object, ...], list[RunResult]] = {}
    for index, result in enumerate(runs):
        schemes.setdefault(_scheme(result.run) or ("alone", index), []).append(result)
    if all(len({r.run.provenance.seed for r in members}) < 2 for members in schemes.values()):
        return ()
    names = [m[0].run.provenance.schedule or m[0].run.name for m in schemes.values()]
    # Two schemes may share a schedule's name and differ in its content, plans or folds.
    told = [n if names.count(n) == 1 else m[0].run.name for n, m in zip(names, schemes.values(), strict=True)]
    return tuple(_group(task, name, members) for name, members in zip(told, schemes.values(), strict=True))


def _group(task: str, name: str, members: list[RunResult]) -> SeedGroup:
    means = np.asarray([r.mean_dice for r in members])
    return SeedGroup(
        task=task,
        name=name,
        runs=tuple(members),
        mean_dice=float(means.mean()),
        sd=float(means.std(ddof=1)) if len(members) > 1 else float("nan"),
        lowest=float(means.min()),
        highest=float(means.max()),
    )


def compare_seed_groups(tasks: Iterable[Sequence[SeedGroup]], margin: float) -> tuple[SeedPair, ...]:
    """Compare every group of a task with that of the task's baseline, which is the first.

    Groups without common cases are left out. The p-values of all tasks are corrected together.
    """
    found = []
    for groups in tasks:
        for group in groups[1:]:
            members = (*group.runs, *groups[0].runs)
            common = sorted(set.intersection(*(set(r.per_case) for r in members)))
            if common:
                mine, theirs = _table(group, common), _table(groups[0], common)
                statistics = paired(list(mine.mean(axis=0) - theirs.mean(axis=0)), margin)
                found.append((group, groups[0], statistics, bootstrap_seeds(mine, theirs)))
    adjusted = holm([statistics.wilcoxon_p for _, _, statistics, _ in found])
    return tuple(
        SeedPair(
            task=group.task,
            group=group,
            baseline=baseline,
            statistics=statistics,
            ci95_seeds=interval,
            wilcoxon_p_holm=p,
            time_ratio=_time_ratio(group, baseline),
            energy_ratio=_ratio(group, baseline, lambda cost: cost.energy_kwh),
            verdict=_verdict(group, baseline, statistics, interval, p, margin),
        )
        for (group, baseline, statistics, interval), p in zip(found, adjusted, strict=True)
    )


def _time_ratio(group: SeedGroup, baseline: SeedGroup) -> float | None:
    sources = {r.cost.source for r in (*group.runs, *baseline.runs)}
    if len(sources) > 1 or (source := next(iter(sources))) is None:
        return None
    return _ratio(group, baseline, lambda cost: cost.seconds.get(source))


def _ratio(group: SeedGroup, baseline: SeedGroup, figure: Callable[[FoldCost], float | None]) -> float | None:
    """Return the ratio of means over seeds, on the folds that all of them have; None unless each has the figure."""
    members = [r.run for r in (*group.runs, *baseline.runs)]
    folds = set.intersection(*({fold.name for fold in run.folds} for run in members))
    costs = [total([figure(fold.cost) for fold in run.folds if fold.name in folds]) for run in members]
    mine, theirs = total(costs[: len(group.runs)]), total(costs[len(group.runs) :])
    if mine is None or theirs is None:
        return None
    return quotient(mine / len(group.runs), theirs / len(baseline.runs))


def _table(group: SeedGroup, cases: Sequence[str]) -> Floats:
    return np.asarray([[r.per_case[c] for c in cases] for r in group.runs])


def _verdict(
    group: SeedGroup,
    baseline: SeedGroup,
    statistics: Paired,
    interval: tuple[float, float],
    p_holm: float,
    margin: float,
) -> Verdict:
    fewest = min(len(group.runs), len(baseline.runs))
    judged = replace(statistics, ci95=interval)
    cases = frozenset.intersection(*(r.case_names for r in (*group.runs, *baseline.runs)))
    mine, theirs = (np.mean([r.mean_dice_on(cases) for r in g.runs]) for g in (group, baseline))
    pooled = float(mine - theirs)
    outcome = decide(judged, p_holm, margin, pooled)
    rests_on = basis(group.runs, baseline.runs, statistics)
    repeated = next((g for g in (baseline, group) if len(g.runs) > 1), None)
    if repeated:
        rests_on += f"; seeds alone move {repeated.name}'s mean Dice by {repeated.highest - repeated.lowest:.4f}"
    weak = caveats(group.runs, baseline.runs, judged, p_holm, margin, pooled)
    if fewest < 5:
        weak = (
            f"{counted(fewest, 'seed')}: the variance between trainings is known only roughly",
            *weak,
        )
    return Verdict(
        outcome=outcome,
        sentence=sentence(outcome, group.name, baseline.name, judged, p_holm, margin, rests_on),
        caveats=weak,
    )
