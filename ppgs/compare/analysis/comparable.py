"""Selection of a task's comparable runs, and notes on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ppgs.compare.model import Run
from ppgs.errors import BadInput, Problem


@dataclass
class Findings:
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def refuse(problems: Sequence[Problem], usable: dict[str, list[Run]]) -> None:
    rest = "; ".join(f"{task}: {', '.join(r.name for r in members)}" for task, members in usable.items())
    still = f"what can still be compared, with --keep-going: {rest}" if rest else "nothing is left that can be compared"
    if not problems:
        raise BadInput("there are no two runs of one task to compare", "compare", "give two or more runs of a task")
    raise BadInput(
        f"{problems[0].what}" if len(problems) == 1 else "not everything given can be compared",
        problems=[*problems[:-1], replace(problems[-1], remedy="; ".join(filter(None, (problems[-1].remedy, still))))],
    )


def comparable(task: str, runs: list[Run], baseline_training: str, found: Findings) -> list[Run]:
    """Return a task's comparable runs, the baseline first; empty for fewer than two."""
    baseline = next((r for r in runs if r.training == baseline_training), None)
    if len(runs) < 2 or baseline is None:
        missing = f"the baseline '{baseline_training}'" if baseline is None else "a second run"
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


def _note_differences(task: str, run: Run, baseline: Run, common: set[str], found: Findings) -> None:
    if data := run.data_changes(baseline):
        found.notes.append(
            f"{task}: {run.name} was not trained on the same data as {baseline.name} ({data.text}); a difference in "
            "Dice may come from that"
        )
    mine, theirs = ({c.case: c for c in one.cases} for one in (run, baseline))
    if len(common) < max(len(mine), len(theirs)):
        found.notes.append(
            f"{task}: {run.name} has {len(mine)} cases, {baseline.name} {len(theirs)}; "
            f"compared on the {len(common)} in common, while each one's mean Dice is over its own"
        )
    if run.fold_names != baseline.fold_names and run.fold_names and baseline.fold_names:
        found.notes.append(
            f"{task}: {run.name} has folds {_folds(run)}, {baseline.name} {_folds(baseline)}; "
            "cost is compared on the folds that both have"
        )
    changed = [
        c.case
        for c in mine.values()
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
