"""`predict`: segments images with the folds of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ppgs.commands.models import find_folds
from ppgs.commands.predict_parts import parse_part, part_of
from ppgs.commands.predict_results import PlannedResults, Results, plan_results, work_out
from ppgs.errors import BadInput, DatasetError, NoCheckpoint, NoSuchRun, PpgsError, Problem
from ppgs.nnunet.images.find import Found, Image, Skipped, is_file_target
from ppgs.nnunet.images.inputs import find_inputs
from ppgs.outputs import Kept, check_names, check_outputs, is_own, lies_in, same_place, shared_place
from ppgs.plans import load_dataset, load_plans
from ppgs.runs.folder import Checkpoint, RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.nnunet.inference.model import Model
    from ppgs.nnunet.inference.segmenter import Segmenter

_CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)


@dataclass(frozen=True)
class PredictRequest:
    """The options of `predict`.

    `source` is a folder, an image, a pattern or a list; `recursive` searches the folders below as well. `part` (`2/8`)
    is the share of the images to segment. `statistics`, `overlay` and `references` (a folder) say what is worked out of
    the segmentations. `gpus` processes share the work, and `sharing` is how many share this machine. Without
    `overwrite`, images whose segmentation exists are left out. Files that ppgs did not write are replaced only with
    `replace_foreign`.
    """

    run: str
    source: Path
    target: Path
    folds: str | None = None
    checkpoint: str | None = None
    device: str = "auto"
    mirroring: bool = True
    step_size: float = 0.5
    overwrite: bool = True
    previous_stage: str | None = None
    probabilities: bool = False
    replace_foreign: bool = False
    preprocess_workers: int | None = None
    export_workers: int | None = None
    recursive: bool = False
    part: str | None = None
    statistics: bool = False
    overlay: bool = False
    references: Path | None = None
    gpus: int | None = None
    sharing: int = 1


@dataclass(frozen=True)
class Predicted:
    """Result: the files written, and the speed (`images_per_minute`, `seconds` in total and by stage, `slowest_stage`).

    `error` names the images that could not be segmented, or whose results could not be computed.
    """

    files: list[Path]
    speed: dict[str, Any]
    results: Results = field(default_factory=Results)
    error: PpgsError | None = None


@dataclass(frozen=True)
class PlannedPrediction:
    """The output file of each image, the output folder, and the input files that are not images.

    `outputs` are still to be segmented; `cases` are all of the input, or of its part.
    """

    outputs: dict[Image, Path]
    folder: Path
    skipped: list[Skipped]
    cases: dict[Image, Path]
    results: PlannedResults = field(default_factory=PlannedResults)


def model_of(asked: PredictRequest, root: Path | None, environ: Mapping[str, str]) -> list[RunFolder]:
    """Return the folds to ensemble: one run's, or several of the same model. Raises `NoSuchRun`."""
    return find_folds(asked.run, asked.folds, Roots.choose(root, environ).results)


def checkpoint_of(run: RunFolder, wanted: str | None) -> Path:
    """Return the checkpoint to use: the final one, or the latest of an unfinished run. Raises `NoCheckpoint`."""
    if wanted is not None and wanted not in _CHECKPOINTS:
        raise BadInput(f"there is no checkpoint '{wanted}'", "--checkpoint", f"use one of {', '.join(_CHECKPOINTS)}")
    usual: tuple[Checkpoint, ...] = ("final", "latest")
    names = usual if wanted is None else tuple(name for name in _CHECKPOINTS if name == wanted)
    for name in names:
        path = run.checkpoint(name)
        if path.is_file():
            return path
    raise NoCheckpoint(
        f"the run has no {names[0]} checkpoint",
        run.path,
        "train it for an epoch at least: ppgs resume continues it" if not wanted else "",
    )


def plan_prediction(asked: PredictRequest, runs: list[RunFolder], roots: Roots) -> PlannedPrediction:
    """Find the images and decide where their segmentations go; reads no image and writes nothing.

    Raises `BadInput` where an output would replace an input, raw data or a file that ppgs did not write,
    `DatasetError` for images that are not named as the model needs them, `RunError` for models that cannot be used.
    """
    for run in runs:
        checkpoint_of(run, asked.checkpoint)
    previous = _previous_stage(asked, runs, roots)
    dataset = load_dataset(runs[0].model / "dataset.json")
    ending = dataset.file_ending
    found = find_inputs(asked.source, len(dataset.channels), ending, recursive=asked.recursive)
    if as_file := is_file_target(asked.target, ending):
        if len(found.images) > 1:
            raise BadInput("the output is one file, the input several images", asked.target, "give a folder")
        outputs = {found.images[0]: asked.target}
    else:
        outputs = {image: asked.target / f"{image.name}{ending}" for image in found.images}
    folder = asked.target.parent if as_file else asked.target
    if not as_file:
        _check_folders(folder, outputs, found, previous)
    # Two images of one name are refused also where one of them is segmented already.
    check_names(list(outputs.values()))
    kinds = (ending, *((".npz", ".pkl") if asked.probabilities else ()))

    def files_of(output: Path) -> list[Path]:
        return [output.with_name(f"{output.name.removesuffix(ending)}{kind}") for kind in kinds]

    cases = outputs = part_of(outputs, part := parse_part(asked.part))
    results = plan_results(
        cases,
        ending,
        folder,
        part,
        as_file=as_file,
        statistics=asked.statistics,
        overlay=asked.overlay,
        references=asked.references,
    )
    if not asked.overwrite:
        outputs = {image: path for image, path in outputs.items() if not all(f.is_file() for f in files_of(path))}
    written = [*(file for path in outputs.values() for file in files_of(path)), *results.files]
    keep = [Kept(file, f"the image {file.name}") for image in found.images for file in image.files]
    names = {path.name.casefold() for path in written}
    keep += [
        Kept(one.file, f"{one.file.name}, a file beside the images")
        for one in found.skipped
        if one.file.name.casefold() in names and not is_own(one.file)
    ]
    if isinstance(previous, Path):
        keep += [Kept(previous / f"{image.name}{ending}", "the previous stage's segmentation") for image in outputs]
    keep += [Kept(file, f"the reference {file.name}") for file in results.references.values()]
    remedy = "give another output; or --overwrite, which replaces files in the output folder, but no input"
    check_outputs(written, keep, overwrite=asked.replace_foreign, remedy=remedy)
    return PlannedPrediction(outputs, folder, found.skipped, cases, results)


def _check_folders(folder: Path, outputs: dict[Image, Path], found: Found, previous: object) -> None:
    inputs = {file.parent for image in outputs for file in image.files}
    if (shared := shared_place([folder, *{path.parent for path in outputs.values()}], inputs)) is not None:
        what = "the output folder is the folder of the images, where results would be taken for images or replace them"
        raise BadInput(what, shared, "give another folder")
    if found.searched is not None and lies_in(folder, found.searched):
        what = "the output folder lies in the folder that is searched for images, where results would be taken for some"
        raise BadInput(what, folder, f"give a folder outside of {found.searched}")
    if isinstance(previous, Path) and same_place(folder, previous):
        raise BadInput("the output folder is that of the previous stage's segmentations", folder, "give another folder")


def predict(
    asked: PredictRequest,
    planned: PlannedPrediction,
    runs: list[RunFolder],
    roots: Roots,
    report: Callable[[int, int], None],
    say: Callable[[str], object] = lambda _: None,
) -> Predicted:
    """Segment as `segment` does; raise `DatasetError` for images that fail (the others are written)."""
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
) -> Predicted:
    """Segment what was planned; call `report(done, total)` per image and `say` where an image's logits are stored.

    Then compute the requested results of all segmentations, calling `examined(done, total)` after each. Raises
    `DoesNotFit` for images that fit neither in memory nor on the disk, before any is segmented; `RunError` for models
    that cannot be used; `DeviceError`; `WorkerLost`.
    """
    errors, files, speed = list[PpgsError](), list[Path](), speed_of(0, 0.0, {})
    if planned.outputs and asked.gpus is not None and asked.gpus > 1:
        from ppgs.commands.predict_children import segment_in_children

        shares = segment_in_children(asked, planned.cases, planned.outputs, roots, report, say)
        errors, files, speed = shares.errors, shares.files, shares.speed
    elif planned.outputs:
        outcome = _segmenter(asked, runs, roots, say).run(planned.outputs, planned.folder, report=report)
        timing, files = outcome.timing, outcome.written
        speed = speed_of(timing.images, timing.seconds, timing.stages)
        errors = _failures(outcome.problems.found, "images could not be segmented")
    written = set(files)
    failed = {image for image, path in planned.outputs.items() if path not in written}
    segmented = {image: path for image, path in planned.cases.items() if image not in failed and path.is_file()}
    dataset = load_dataset(runs[0].model / "dataset.json")
    results = work_out(planned.results, segmented, runs[0].model, dataset, examined)
    errors += _failures(results.problems, "segmentations could not be examined")
    return Predicted(files, speed, results, together(errors))


def _failures(found: list[Problem], what: str) -> list[PpgsError]:
    return [DatasetError(found[0].what if len(found) == 1 else f"{len(found)} {what}", problems=found)] if found else []


def together(errors: Sequence[PpgsError]) -> PpgsError | None:
    """Return one error of the first one's type with the problems of all; None if there are none."""
    if len(errors) < 2:
        return errors[0] if errors else None
    problems = [problem for error in errors for problem in error.problems]
    return type(errors[0])(f"{len(problems)} problems; what could be done is done", problems=problems)


def speed_of(images: int, seconds: float, stages: Mapping[str, float]) -> dict[str, Any]:
    """Return the speed of `images` segmentations for JSON; `stages` are seconds by stage."""
    return {
        "images_per_minute": 60 * images / seconds if seconds else None,
        "seconds": seconds,
        "stage_seconds": dict(stages),
        "slowest_stage": max(stages, key=lambda stage: stages[stage]) if stages and images else None,
    }


def _segmenter(asked: PredictRequest, runs: list[RunFolder], roots: Roots, say: Callable[[str], object]) -> Segmenter:
    checkpoints = [checkpoint_of(run, asked.checkpoint) for run in runs]
    previous = _previous_stage(asked, runs, roots)
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
    voxel = read_manifest(runs[0]).request.geometry == "voxel"
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


def _previous_stage(
    asked: PredictRequest, runs: list[RunFolder], roots: Roots
) -> tuple[list[RunFolder], list[Path]] | Path | None:
    """Return a cascade's first stage (runs and checkpoints, or a folder of its segmentations); None otherwise.

    Without `--previous-stage` it is what was trained the same way, of the same folds. Raises `NoSuchRun`,
    `NoCheckpoint`, `BadInput`.
    """
    model, given = runs[0].model, asked.previous_stage
    configuration = load_plans(model / "plans.json").configuration(model.name.rsplit("__", 1)[-1])
    stage = configuration.previous_stage
    if stage is None:
        if given is not None:
            raise BadInput(
                f"{configuration.name} is no cascade's second stage", "--previous-stage", "leave the option out"
            )
        return None
    if given is None:
        first = [run for run in (run.in_configuration(stage) for run in runs) if run.own.is_dir()]
        if not first:
            raise NoSuchRun(
                f"{configuration.name} needs the segmentations of {stage}, which has not been trained the same way",
                runs[0].in_configuration(stage).model,
                "give --previous-stage RUN, or a folder of segmentations",
            )
    elif (folder := Path(given)).is_dir() and not any(
        p.is_dir() for p in (folder / "ppgs", *folder.glob("fold_*/ppgs"))
    ):
        return Path(given)
    else:
        first = find_folds(given, None, roots.results)
        name = first[0].model.name.rsplit("__", 1)[-1]
        if name != stage:
            raise BadInput(f"that run is of {name}; {configuration.name} follows {stage}", "--previous-stage")
    return first, [checkpoint_of(run, None) for run in first]
