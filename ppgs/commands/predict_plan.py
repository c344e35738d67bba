"""`predict`: from a request to the images to segment and the files to write; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_args

from ppgs.commands.models import USUAL, find_folds, most_trained, stock_folds
from ppgs.commands.predict_parts import parse_part, part_of
from ppgs.commands.predict_results import PlannedResults, plan_results
from ppgs.errors import BadInput, NoCheckpoint, NoSuchRun, PathUnusable
from ppgs.nnunet.images.find import Found, Image, Skipped, is_file_target, kinds_beside
from ppgs.nnunet.images.inputs import find_inputs
from ppgs.outputs import Kept, check_names, check_outputs, is_own, lies_in, same_place, shared_place
from ppgs.plans import load_dataset, load_plans, read_json
from ppgs.runs.cascade import check_first_stage, first_stage_folds, first_stage_of, no_second_stage
from ppgs.runs.folder import Checkpoint, RunFolder, configuration_of
from ppgs.tasks import Roots

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
class PlannedPrediction:
    """The output file of each image, the output folder, and the input files that are not images.

    `outputs` are still to be segmented; `cases` are all of the input, or of its part. `copied` are files of the model
    that go into the output folder, where `nnUNetv2_ensemble` reads them, by the copy. `checkpoints` are the model's,
    then those of a cascade's first stage.
    """

    outputs: dict[Image, Path]
    folder: Path
    skipped: list[Skipped]
    cases: dict[Image, Path]
    results: PlannedResults = field(default_factory=PlannedResults)
    copied: Mapping[Path, Path] = field(default_factory=dict)
    checkpoints: Sequence[Path] = ()


def choose_folds(
    asked: PredictRequest, roots: Roots, say: Callable[[str], object] = lambda _: None
) -> tuple[PredictRequest, list[RunFolder]]:
    """Return the folds to ensemble (one run's, or several of the same model) and the request with them.

    So parts of the images that are segmented later use the same folds, although others may be finished by then. Without
    `folds` and `checkpoint`, unfinished folds are left out where others are finished; `say` is called with them. Raises
    `NoSuchRun`.
    """
    choose = partial(most_trained, say=say) if asked.checkpoint is None else list
    runs = find_folds(asked.run, asked.folds, roots.results, choose, stock=True)
    # A path: in another process, a folder named like the run is not taken for it.
    return replace(asked, run=str(runs[0].model.absolute()), folds=",".join(run.fold for run in runs)), runs


def checkpoint_of(run: RunFolder, wanted: str | None) -> Path:
    """Return the checkpoint to use: the final one, or the latest of an unfinished run. Raises `NoCheckpoint`."""
    if wanted is not None and wanted not in _CHECKPOINTS:
        raise BadInput(f"there is no checkpoint '{wanted}'", "--checkpoint", f"use one of {', '.join(_CHECKPOINTS)}")
    names = USUAL if wanted is None else tuple(name for name in _CHECKPOINTS if name == wanted)
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
    checkpoints = [checkpoint_of(run, asked.checkpoint) for run in runs]
    previous = previous_stage_of(asked, runs, roots)
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
    PathUnusable.check_folder(folder)
    if not as_file:
        _check_folders(folder, outputs, found, previous)
    reader = str(read_json(runs[0].model / "plans.json").get("image_reader_writer"))
    kinds = (ending, *kinds_beside(reader, probabilities=asked.probabilities))

    def files_of(output: Path) -> list[Path]:
        return [output.with_name(f"{output.name.removesuffix(ending)}{kind}") for kind in kinds]

    # In this order: a folder with dataset.json alone may look like a raw dataset (`data_around`).
    wanted = ("plans.json", "dataset.json") if asked.probabilities and not as_file else ()
    copied = {folder / name: runs[0].model / name for name in wanted}
    # Two images of one name are refused also where one of them is segmented already.
    check_names([*(file for path in outputs.values() for file in files_of(path)), *copied])
    copied = {copy: file for copy, file in copied.items() if not _same(copy, file)}
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
    own: set[Path] = set()
    if not asked.overwrite:
        outputs = {image: path for image, path in outputs.items() if not all(f.is_file() for f in files_of(path))}
        done = {image: path for image, path in cases.items() if image not in outputs}
        # A record that has the segmentations also says if the other files were changed.
        if done and not is_own(next(iter(done.values()))):
            own = results.made_before(done)
    written = [*(file for path in outputs.values() for file in files_of(path)), *results.files, *copied]
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
    check_outputs(written, keep, overwrite=asked.replace_foreign, own=own, remedy=remedy)
    first = previous[1] if isinstance(previous, tuple) else []
    return PlannedPrediction(outputs, folder, found.skipped, cases, results, copied, [*checkpoints, *first])


def _same(copy: Path, file: Path) -> bool:
    """Return whether the copy is there, such as one that another part of the prediction has made."""
    return copy.is_file() and copy.read_bytes() == file.read_bytes()


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


def previous_stage_of(
    asked: PredictRequest, runs: list[RunFolder], roots: Roots
) -> tuple[list[RunFolder], list[Path]] | Path | None:
    """Return a cascade's first stage (runs and checkpoints, or a folder of its segmentations); None otherwise.

    Without `--previous-stage` it is what the run was trained with, of the same folds where they exist. Raises
    `NoSuchRun`, `NoCheckpoint`, `BadInput`.
    """
    model, given = runs[0].model, asked.previous_stage
    configuration = load_plans(model / "plans.json").configuration(configuration_of(model))
    stage = configuration.previous_stage
    if stage is None:
        if given is not None:
            raise no_second_stage(configuration.name)
        return None
    if given is None:
        first = first_stage_folds(runs, stage, lambda run: run.checkpoint_final.is_file())
        first = first or first_stage_folds(runs, stage, lambda run: run.own.is_dir())
        if not first:
            raise NoSuchRun(
                f"{configuration.name} needs the segmentations of {stage}; the run that it was trained with is gone",
                first_stage_of(runs[0], stage).model,
                "give --previous-stage RUN, or a folder of segmentations",
            )
    elif (folder := Path(given)).is_dir() and not (
        stock_folds(folder) or any(p.is_dir() for p in (folder / "ppgs", *folder.glob("fold_*/ppgs")))
    ):
        return folder
    else:
        first = find_folds(given, None, roots.results, most_trained, stock=True)
        check_first_stage(first[0].model, stage, configuration.name)
    return first, [checkpoint_of(run, None) for run in first]
