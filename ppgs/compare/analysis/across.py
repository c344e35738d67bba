"""Many tasks together: wins, losses, mean rank, mean relative gain against the baseline training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ppgs.compare.analysis.verdict import p_text, signed
from ppgs.compare.results import AcrossTasks, Pair, TaskResult
from ppgs.compare.statistics import Ranking, bootstrap_mean, rank, wilcoxon


def over_tasks(tasks: Sequence[TaskResult], labels: dict[str, str]) -> tuple[AcrossTasks, ...]:
    """Return one line per training, in the order of first appearance; empty for fewer than two tasks."""
    if len(tasks) < 2:
        return ()
    pairs: dict[str, list[Pair]] = {}
    for task in tasks:
        for pair in task.pairs:
            pairs.setdefault(pair.run.run.training, []).append(pair)
    return tuple(_line(name, found, labels) for name, found in pairs.items() if len(found) > 1)


def _line(training: str, pairs: list[Pair], labels: dict[str, str]) -> AcrossTasks:
    base = np.asarray([p.common_baseline_mean_dice for p in pairs])
    differences = np.asarray([p.common_mean_dice for p in pairs]) - base
    # A baseline that finds nothing at all has no relative gain.
    relative = 100 * differences[base > 0] / base[base > 0]
    gain = float(relative.mean()) if relative.size else float("nan")
    interval = bootstrap_mean(relative) if relative.size else (gain, gain)
    outcomes = [p.verdict.outcome for p in pairs]
    p = wilcoxon(differences)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    time = _mean(pairs, lambda pair: pair.time_ratio)
    energy = _mean(pairs, lambda pair: pair.energy_ratio)
    run, baseline = (
        labels.get(training, training),
        labels.get(pairs[0].baseline.run.training, pairs[0].baseline.run.training),
    )
    cost = "".join(
        f", {ratio:.2f} × the {what}" for ratio, what in ((time, "time"), (energy, "energy")) if ratio is not None
    )
    verdict = (
        f"Over {len(pairs)} tasks {run} has the higher mean Dice on {wins} and the lower on {losses}, "
        f"clearly better on {outcomes.count('better')} and clearly worse on {outcomes.count('worse')}; "
        f"mean relative gain {signed(gain, 2)} % over {baseline} "
        f"(95 % CI over tasks {signed(interval[0], 2)} to {signed(interval[1], 2)} %, "
        f"signed-rank p {p_text(p) if p < 0.001 else '= ' + p_text(p)}){cost}."
    )
    return AcrossTasks(
        training=training,
        tasks=len(pairs),
        wins=wins,
        losses=losses,
        ties=len(pairs) - wins - losses,
        clear_wins=outcomes.count("better"),
        clear_losses=outcomes.count("worse"),
        not_worse=sum(pair.non_inferior for pair in pairs),
        mean_difference=float(differences.mean()),
        mean_relative_gain=gain,
        relative_gain_ci95=interval,
        wilcoxon_p=p,
        time_ratio=time,
        energy_ratio=energy,
        co2_ratio=_mean(pairs, lambda pair: pair.co2_ratio),
        verdict=verdict,
    )


def _mean(pairs: Sequence[Pair], ratio: Callable[[Pair], float | None]) -> float | None:
    """Return the mean over tasks; None unless every task has the ratio."""
    values = [value for pair in pairs if (value := ratio(pair)) is not None]
    return sum(values) / len(values) if len(values) == len(pairs) else None


def rank_trainings(tasks: Sequence[TaskResult]) -> Ranking | None:
    """Rank trainings on the tasks that all of them have; None for fewer than two such tasks.

    A task ranks its trainings by their mean Dice over the cases that all of them have; without such cases it is left
    out.
    """
    trainings = list(dict.fromkeys(r.run.training for t in tasks for r in t.runs))
    by_task = [_on_shared_cases(t) for t in tasks if len(t.runs) == len(trainings)]
    complete = [scores for scores in by_task if all(map(math.isfinite, scores.values()))]
    if len(complete) < 2:
        return None
    return rank({name: [scores[name] for scores in complete] for name in trainings})


def _on_shared_cases(task: TaskResult) -> dict[str, float]:
    """Return the mean Dice by training over the cases that all runs of the task have; NaN if they share none."""
    shared = frozenset.intersection(*(r.case_names for r in task.runs))
    return {r.run.training: r.mean_dice_on(shared) for r in task.runs}
