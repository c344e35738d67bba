"""The verdicts and caveats of a comparison, as lines of text."""

from __future__ import annotations

from ppgs.compare.results import Comparison


def verdict_lines(comparison: Comparison) -> list[str]:
    """Return the verdicts from the widest to the narrowest: over tasks, over seeds, per pair."""
    lines = [a.verdict for a in comparison.across]
    many = len(comparison.tasks) > 1
    for task in comparison.tasks:
        prefix = f"{task.task}: " if many else ""
        verdicts = [p.verdict for p in task.seed_pairs] or [p.verdict for p in task.pairs]
        lines += [prefix + v.sentence for v in verdicts]
    return lines


def caveat_lines(comparison: Comparison) -> list[str]:
    """Return all caveats with the tasks, and the runs of a task, that they apply to unless they apply to all."""
    holds: dict[str, list[str]] = {}
    for task in comparison.tasks:
        pairs = [(p.group.name, p.verdict) for p in task.seed_pairs]
        pairs = pairs or [(comparison.label(p.run.run), p.verdict) for p in task.pairs]
        for text in dict.fromkeys(c for _, v in pairs for c in v.caveats):
            names = [name for name, v in pairs if text in v.caveats]
            line = text if len(names) == len(pairs) else f"{', '.join(names)}: {text}"
            holds.setdefault(line, []).append(task.task)
    return [
        text if len(tasks) == len(comparison.tasks) else f"{', '.join(tasks)}: {text}" for text, tasks in holds.items()
    ]
