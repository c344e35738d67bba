"""`predict`: segments images with the folds of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppgs.commands.predict_children import segment_in_children, speed_of
from ppgs.commands.predict_plan import PlannedPrediction, PredictRequest, checkpoint_of, previous_stage_of
from ppgs.commands.predict_results import Results, work_out
from ppgs.errors import DatasetError, PpgsError, Problem
from ppgs.outputs import remember
from ppgs.plans import load_dataset
from ppgs.runs.atomic import write_atomically
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.nnunet.inference.model import Model
    from ppgs.nnunet.inference.segmenter import Segmenter


@dataclass(frozen=True)
class Predicted:
    """Result: the files written, and the speed (`images_per_minute`, `seconds` in total and by stage, `slowest_stage`).

    `error` names the images that could not be segmented, or whose results could not be computed.
    """

    files: list[Path]
    speed: dict[str, Any]
    results: Results = field(default_factory=Results)
    error: PpgsError | None = None


def predict(
    asked: PredictRequest,
    planned: PlannedPrediction,
    runs: list[RunFolder],
    roots: Roots,
    report: Callable[[int, int], None],
    say: Callable[[str], object] = lambda _: None,
) -> Predicted:
    """Segment as `segment` does, but raise the error that it returns; what did not fail is written."""
    predicted = segment(asked, planned, runs, roots, report, say)
    if predicted.error is not None:
        raise predicted.error
    return predicted


def segment(
    asked: PredictRequest,
    planned: PlannedPrediction,
    runs: list[RunFolder],
    roots: Roots,
    report: Callable[[int, int], None],
    say: Callable[[str], object] = lambda _: None,
    examined: Callable[[int, int], None] = lambda _, __: None,
    wrote: Callable[[Path], object] = lambda _: None,
) -> Predicted:
    """Segment what was planned; call `report(done, total)` per image and `say` where an image's logits are stored.

    Then compute the requested results of all segmentations, calling `examined(done, total)` after each. Raises
    `DoesNotFit` for images that fit neither in memory nor on the disk, before any is segmented; `RunError` for models
    that cannot be used; `DeviceError`; `WorkerLost`.

    `wrote(file)` is called after each segmentation, unless several processes write them.
    """
    errors, files, speed = list[PpgsError](), list[Path](), speed_of(0, 0.0, {})
    if planned.outputs and asked.gpus is not None and asked.gpus > 1:
        shares = segment_in_children(asked, planned.cases, planned.outputs, roots, report, say)
        errors, files, speed = shares.errors, shares.files, shares.speed
    elif planned.outputs:
        segmenter = _segmenter(asked, runs, roots, say)
        outcome = segmenter.run(planned.outputs, planned.folder, report=report, wrote=wrote)
        timing, files = outcome.timing, outcome.written
        speed = speed_of(len(files), timing.seconds, timing.stages)
        errors = _failures(outcome.problems.found, "images could not be segmented")
    written = set(files)
    failed = {image for image, path in planned.outputs.items() if path not in written}
    segmented = {image: path for image, path in planned.cases.items() if image not in failed and path.is_file()}
    if segmented:
        for copy, file in planned.copied.items():
            _copy(file, copy)
    dataset = load_dataset(runs[0].model / "dataset.json")
    results = work_out(planned.results, segmented, runs[0].model, dataset, examined)
    errors += _failures(results.problems, "segmentations could not be examined")
    return Predicted(files, speed, results, together(errors))


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda file: file.write(source.read_bytes()))
    remember(target)


def _failures(found: list[Problem], what: str) -> list[PpgsError]:
    return [DatasetError(found[0].what if len(found) == 1 else f"{len(found)} {what}", problems=found)] if found else []


def together(errors: Sequence[PpgsError]) -> PpgsError | None:
    """Return one error of the first one's type with the problems of all; None if there are none."""
    if len(errors) < 2:
        return errors[0] if errors else None
    problems = [problem for error in errors for problem in error.problems]
    return type(errors[0])(f"{len(problems)} problems; what could be done is done", problems=problems)


def _segmenter(asked: PredictRequest, runs: list[RunFolder], roots: Roots, say: Callable[[str], object]) -> Segmenter:
    checkpoints = [checkpoint_of(run, asked.checkpoint) for run in runs]
    previous = previous_stage_of(asked, runs, roots)
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots, asked.sharing)
    from ppgs.nnunet.inference.model import load_model
    from ppgs.nnunet.inference.pipeline import Workers
    from ppgs.nnunet.inference.segmenter import Segmenter

    def load(chosen: list[RunFolder], files: list[Path]) -> Model:
        return load_model(
            chosen[0].model,
            files,
            asked.device,
            mirroring=asked.mirroring,
            step_size=asked.step_size,
            processes=asked.sharing,
        )

    workers = Workers(asked.preprocess_workers, asked.export_workers, asked.sharing)
    voxel = runs[0].own.is_dir() and read_manifest(runs[0]).request.geometry == "voxel"
    first = (
        previous
        if previous is None or isinstance(previous, Path)
        else Segmenter(load(*previous), in_voxel_order=voxel, workers=workers, say=say)
    )
    return Segmenter(
        load(runs, checkpoints),
        previous=first,
        probabilities=asked.probabilities,
        in_voxel_order=voxel,
        workers=workers,
        say=say,
    )
