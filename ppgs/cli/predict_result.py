"""Output of `predict`: lines for people, JSON for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppgs.cli.output import note, out, print_json
from ppgs.commands.predict import Predicted
from ppgs.commands.predict_plan import PlannedPrediction
from ppgs.commands.predict_results import Scores
from ppgs.formatting import dice_text
from ppgs.nnunet.images.find import Skipped
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder, configuration_of
from ppgs.runs.state import RunState

_MOST_NAMED = 20


def name_skipped(skipped: Sequence[Skipped]) -> None:
    """Print the input files that are not segmented."""
    for one in skipped[:_MOST_NAMED]:
        note(f"skipped {one.file.name}: {one.reason}")
    if len(skipped) > _MOST_NAMED:
        note(f"and {len(skipped) - _MOST_NAMED} more files, which --json lists")


def name_latest(checkpoints: Sequence[Path]) -> None:
    """Print which of the checkpoints are of trainings that are not finished, and how far these were."""
    for run in (RunFolder(path.parent) for path in checkpoints if path == RunFolder(path.parent).checkpoint_latest):
        state = RunState().apply_all(read_events(run.events))
        far = f", after {state.checkpoint_epoch} of {state.epochs} epochs" if state.checkpoint_epoch else ""
        note(f"{run.path.name} of {configuration_of(run.model)}: latest checkpoint{far}")


def name_unreferenced(cases: Sequence[str]) -> None:
    """Print the cases without a reference."""
    if cases:
        rest = f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else ""
        note(f"without a reference: {', '.join(cases[:_MOST_NAMED])}{rest}")


def tell(predicted: Predicted, target: Path) -> None:
    """Print the files written and the Dice of each case."""
    speed, results = predicted.speed["images_per_minute"], predicted.results
    if results.scores is not None:
        _tell_dice(results.scores)
    slowest = f" ({speed:.1f} images per minute, slowest: {predicted.speed['slowest_stage']})" if speed else ""
    out.print(f"{len(predicted.files)} segmentations in {target}{slowest}", markup=False)
    if results.statistics is not None:
        out.print(f"statistics: {results.statistics}", markup=False)
    if results.overlays:
        out.print(f"{len(results.overlays)} pictures in {results.overlays[0].parent}", markup=False)


def _tell_dice(scores: Scores) -> None:
    for case in scores.cases:
        out.print(f"{case}: {dice_text(scores.mean_of(case), scores.cases[case])}", markup=False)
    out.print(f"mean of {len(scores.cases)} cases: {dice_text(scores.mean, scores.per_class)}", markup=False)


def print_record(run: str, runs: Sequence[RunFolder], planned: PlannedPrediction, predicted: Predicted) -> None:
    """Print the result as JSON; Dice that is not defined is null."""
    results, error = predicted.results, predicted.error
    print_json(
        {
            "run": run,
            "folds": [r.path.name.removeprefix("fold_") for r in runs],
            "checkpoints": planned.checkpoints,
            "files": predicted.files,
            "skipped": [{"file": one.file, "reason": one.reason} for one in planned.skipped],
            **predicted.speed,
            "failed": [{"what": p.what, "where": p.where} for p in error.problems] if error is not None else [],
            **({"statistics": results.statistics} if results.statistics is not None else {}),
            **({"overlays": results.overlays} if planned.results.overlays else {}),
            **({"dice": _record(results.scores)} if results.scores is not None else {}),
        }
    )


def _record(scores: Scores) -> dict[str, Any]:
    def values(classes: Mapping[str, float]) -> dict[str, float | None]:
        return {name: _known(value) for name, value in classes.items()}

    return {
        "cases": {case: values(classes) for case, classes in scores.cases.items()},
        "dice_per_class": values(scores.per_class),
        "mean_dice": _known(scores.mean),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
