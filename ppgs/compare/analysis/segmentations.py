"""Segmentations on disk: reading, Dice and surface metrics against references.

Images are read with SimpleITK; arrays are (z, y, x) or (y, x), spacings in mm in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppgs import upstream
from ppgs.compare.analysis.surfaces import Mask, surface_distances
from ppgs.compare.loading.reader import find_upwards
from ppgs.compare.loading.sources import IMAGE_ENDINGS, Place, image_files
from ppgs.compare.loading.summaries import case_name, is_file
from ppgs.compare.model import CaseScores, Run
from ppgs.compare.results import Surface
from ppgs.compare.statistics import nan_mean
from ppgs.errors import BadInput, Problems
from ppgs.plans import load_dataset, read_json
from ppgs.processes.limits import cpu_count
from ppgs.processes.pool import WorkerPool
from ppgs.tiff import read_spacing

Labels = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Image:
    """An image or segmentation with its spacing in mm, one value an axis of the array.

    `is_spaced` is False for a TIFF volume without the file beside it that says its spacing, which is 1 then.
    `orientation` has the directions in which x, y and z of a volume rise, in DICOM's letters.
    """

    values: NDArray[Any]
    spacing: tuple[float, ...]
    is_spaced: bool = True
    orientation: str = "LPS"

    def spaced_as(self, other: Image) -> Image:
        """Return it with the other's spacing where its own is not known."""
        return self if self.is_spaced else replace(self, spacing=other.spacing)

    def upright(self, orientation: str) -> Image:
        """Return a volume of this orientation with axes from feet to head, from front to back and from right to left.

        The axes are exchanged and turned; the volume is not resampled.
        """
        rising = orientation[::-1]
        axes = [next(axis for axis in range(3) if rising[axis] in ends) for ends in ("SI", "PA", "LR")]
        turned = tuple(slice(None, None, -1 if rising[axis] in "IAR" else 1) for axis in axes)
        return Image(self.values.transpose(axes)[turned], tuple(self.spacing[axis] for axis in axes))


def read_image(path: Path, *, reorient: bool = False) -> Image:
    """Read an image, a volume turned upright by its header with `reorient`; raises `BadInput` naming the file."""
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
        values = SimpleITK.GetArrayFromImage(image)
    except RuntimeError as problem:
        lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
        raise BadInput(f"the image cannot be read: {lines[-1] if lines else problem}", path) from None
    spacing = tuple(float(s) for s in reversed(image.GetSpacing()))
    if path.suffix.lower() in (".tif", ".tiff") and values.ndim == len(spacing) == 3 and len(values) > 1:
        return _tiff_volume(values, path.with_suffix(".json"))
    if values.ndim > len(spacing):
        # Draw the brightness of a colour picture.
        values = values.mean(axis=-1)
    if values.ndim == 3 and values.shape[0] == 1:
        return Image(values[0], spacing[1:])
    if values.ndim != 3:
        return Image(values, spacing)
    orientation = SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    image = Image(values, spacing, orientation=orientation)
    return image.upright(orientation) if reorient else image


def reorients(*folders: Path) -> bool:
    """Return whether the nearest plans or `dataset.json` name a reader of nnU-Net's that turns images by their headers.

    Labels may then be stored in another orientation than the images, as which predictions are written.
    """
    for folder in folders:
        for name, key in (("plans.json", "image_reader_writer"), ("dataset.json", "overwrite_image_reader_writer")):
            with suppress(BadInput):
                if (file := find_upwards(folder, name)) and (reader := read_json(file).get(key)):
                    return reader in upstream.REORIENTING
    return False


def _tiff_volume(values: NDArray[Any], beside: Path) -> Image:
    """Return a volume with the spacing where nnU-Net keeps it: a TIFF file has no place for it."""
    try:
        return Image(values, read_spacing(beside))
    except FileNotFoundError:
        return Image(values, (1.0, 1.0, 1.0), is_spaced=False)
    except (OSError, ValueError) as problem:
        raise BadInput(f"the spacing cannot be read: {problem}", beside) from None


def images_in(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by case name, which begins with the path of a folder below it (`patient1/ct`)."""
    return {(f.parent.relative_to(folder) / case_name(f.name)).as_posix(): f for f in image_files(folder)}


def labels_of(key: str) -> tuple[int, ...]:
    """Return the label values of a class key of `summary.json`: `1` or `(1, 2, 3)`."""
    return tuple(int(part) for part in key.strip("()").split(",") if part.strip())


def mask_of(values: NDArray[Any], labels: Sequence[int]) -> Mask:
    return values == labels[0] if len(labels) == 1 else np.isin(values, labels)


def score_predictions(place: Place, references: Path) -> tuple[CaseScores, ...]:
    """Compute the Dice of every prediction that has a reference of the same name.

    Classes and the ignore label come from the nearest `dataset.json` of the predictions or references, else every
    value above 0 in the references is a class. Raises `BadInput` naming all files that cannot be compared.
    """
    predictions, known = images_in(place.path), images_in(references)
    common = [case for case in predictions if case in known]
    if not common:
        raise BadInput(
            f"no prediction has a reference of the same name (predictions: {_few(predictions)}; "
            f"references: {_few(known)})",
            place.path,
            "give the references of these cases with --references",
        )
    labels, ignore = _classes(place.path, references)
    if labels is None:
        found: set[int] = set()
        for reference in known.values():
            found.update(int(v) for v in np.unique(read_image(reference).values) if v > 0)
        labels = {str(value): (value,) for value in sorted(found)}
    if not labels:
        raise BadInput("the references hold no foreground", references)
    problems, cases = Problems(), []
    reorient = reorients(place.path, references)
    for case in common:
        try:
            cases.append(_score(case, predictions[case], known[case], labels, ignore, reorient))
        except BadInput as error:
            problems.found += error.problems
    problems.raise_as(BadInput, f"{len(problems.found)} of {len(common)} predictions cannot be compared")
    return tuple(cases)


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"


def _classes(*folders: Path) -> tuple[dict[str, tuple[int, ...]] | None, int | None]:
    for folder in folders:
        if file := find_upwards(folder, "dataset.json", 1):
            dataset = load_dataset(file)
            labels = {
                str(value): value if isinstance(value, tuple) else (value,) for value in dataset.foreground.values()
            }
            return labels, dataset.ignore_label
    return None, None


def _score(
    case: str, prediction: Path, reference: Path, labels: Labels, ignore: int | None, reorient: bool
) -> CaseScores:
    predicted, referred = (read_image(file, reorient=reorient).values for file in (prediction, reference))
    if predicted.shape != referred.shape:
        raise BadInput(
            f"prediction has shape {predicted.shape}, reference {referred.shape}",
            prediction,
            f"predict in the space of {reference}",
        )
    dice, voxels = {}, {}
    for key, values in labels.items():
        p, r = _masks(predicted, referred, values, ignore)
        total = int(p.sum()) + int(r.sum())
        dice[key] = 2 * int((p & r).sum()) / total if total else math.nan
        voxels[key] = int(r.sum())
    return CaseScores(case, dice, voxels, prediction, reference)


def _masks(
    predicted: NDArray[Any], referred: NDArray[Any], labels: Sequence[int], ignore: int | None
) -> tuple[Mask, Mask]:
    """Return both masks of a class; voxels that the reference ignores are background in both, as in nnU-Net."""
    p, r = mask_of(predicted, labels), mask_of(referred, labels)
    if ignore is None:
        return p, r
    counted = referred != ignore
    return p & counted, r & counted


@dataclass(frozen=True)
class _Job:
    prediction: Path
    reference: Path
    labels: dict[str, tuple[int, ...]]
    tolerance_mm: float
    ignore: int | None
    reorient: bool = False

    @property
    def name(self) -> str:
        return str(self.prediction)


def _measure(job: _Job) -> dict[str, tuple[float, float]]:
    predicted, referred = (read_image(file, reorient=job.reorient) for file in (job.prediction, job.reference))
    if predicted.values.shape != referred.values.shape:
        raise BadInput(
            f"prediction has shape {predicted.values.shape}, reference {referred.values.shape}", job.prediction
        )
    # nnU-Net copies references without the file of their spacing, but writes one beside each segmentation.
    spacing = referred.spaced_as(predicted).spacing
    return {
        key: surface_distances(
            *_masks(predicted.values, referred.values, values, job.ignore), spacing, job.tolerance_mm
        )
        for key, values in job.labels.items()
    }


def find_reference(scores: CaseScores, folders: Sequence[Path]) -> Path | None:
    """Return a case's reference: the file named in the summary, else the file of that name in one of the folders."""
    if is_file(scores.reference):
        return scores.reference
    ending = next((e for e in IMAGE_ENDINGS if scores.prediction and scores.prediction.name.endswith(e)), None)
    if ending is None:
        return None
    return next((f for folder in folders if is_file(f := folder / f"{scores.case}{ending}")), None)


def measure_surfaces(
    run: Run,
    reference_folders: Sequence[Path],
    tolerance_mm: float,
    progress: Callable[[str], None],
    workers: int | None = None,
) -> tuple[Surface | None, list[str]]:
    """Measure the surface metrics of a run on the cases whose segmentations exist; note those that fail.

    Large volumes take seconds each, so cases are spread over processes: `workers` of them; None for as many as there
    are cores, few for few cases. The ignore label is that of the nearest `dataset.json` of the run or its references.
    """
    found: list[tuple[Path, Path, CaseScores]] = []
    notes: list[str] = []
    for scores in run.cases:
        reference = find_reference(scores, reference_folders)
        if reference and scores.prediction and is_file(scores.prediction):
            found.append((scores.prediction, reference, scores))
    if not found:
        return None, notes
    try:
        _, ignore = _classes(run.provenance.path, found[0][1].parent)
    except BadInput as error:
        return None, [f"{run.name}: no surface distances: {error}"]
    reorient = reorients(run.provenance.path, found[0][1].parent)
    jobs = [_Job(p, r, {k: labels_of(k) for k in s.dice}, tolerance_mm, ignore, reorient) for p, r, s in found]
    progress(f"surface distances of {run.name}: {len(jobs)} cases")
    measured = []
    for job, outcome in zip(jobs, _spread(jobs, workers), strict=True):
        if isinstance(outcome, BadInput):
            notes.append(f"{job.prediction}: no surface distances: {outcome}")
        else:
            measured.append(outcome)
    if not measured:
        return None, notes
    if len(measured) < (count := sum(1 for _ in run.cases)):
        notes.append(
            f"{run.task}: {run.name}: surface distances of {len(measured)} of {count} cases; surface Dice and HD95 are "
            "means over these, as segmentations or references of the others are missing or cannot be used"
        )
    # Folds may have been trained on other classes.
    keys = dict.fromkeys(key for m in measured for key in m)
    per_class = {
        key: (nan_mean([m[key][0] for m in measured if key in m]), nan_mean([m[key][1] for m in measured if key in m]))
        for key in keys
    }
    return (
        Surface(
            surface_dice=nan_mean([value[0] for value in per_class.values()]),
            hd95_mm=nan_mean([value[1] for value in per_class.values()]),
            per_class=per_class,
            cases=len(measured),
        ),
        notes,
    )


def _try(job: _Job) -> dict[str, tuple[float, float]] | BadInput:
    try:
        return _measure(job)
    except BadInput as error:
        return error


def _spread(jobs: list[_Job], workers: int | None) -> list[dict[str, tuple[float, float]] | BadInput]:
    # No more than 4 unless asked for, as a large pair of volumes takes 1 GB.
    count = min(cpu_count(), 4, len(jobs) // 4) if workers is None else min(workers, len(jobs))
    if count < 2:
        return [_try(job) for job in jobs]
    # Spawned, as the parent may hold threads of numerical libraries.
    with WorkerPool(count, context=get_context("spawn")) as pool:
        return pool.map(_try, jobs)
