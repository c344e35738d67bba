"""Pictures of cases: the best, the median and the worst of each run, contours of reference and prediction on the slice
that shows most of both, at the right aspect."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ppgs.compare.analysis.segmentations import Image, find_reference, labels_of, mask_of, read_image, reorients
from ppgs.compare.loading.sources import IMAGE_ENDINGS
from ppgs.compare.loading.summaries import is_file
from ppgs.compare.model import CaseScores, Run
from ppgs.compare.results import Comparison, RunResult
from ppgs.errors import BadInput

Which = Literal["best", "median", "worst"]
REFERENCE, PREDICTION = "#39d98a", "#ff5c8a"
_SIDE_INCHES, _DPI = 2.6, 120
# What is shown around the object, as a share of its size, and at least this many mm.
_AROUND, _LEAST_MM = 0.35, 12.0


@dataclass(frozen=True)
class Picture:
    """One case as PNG; `slice_axis` and `slice_index` say which slice of the upright array (z, y, x) it shows."""

    task: str
    run: str
    which: Which
    case: str
    dice: float
    png: bytes
    slice_axis: int
    slice_index: int
    with_image: bool


Folders = Callable[[Run], Sequence[Path]]


def case_pictures(comparison: Comparison, references: Folders, images: Folders) -> list[Picture]:
    """Draw pictures of every run whose segmentations exist; cases that cannot be read are left out."""
    found = []
    for result in comparison.runs:
        usable = {
            c.case: c for c in result.run.cases if is_file(c.prediction) and find_reference(c, references(result.run))
        }
        for which, case in _choose(result, set(usable)).items():
            picture = _picture(result, usable[case], which, references(result.run), images(result.run))
            if picture is not None:
                found.append(picture)
    return found


def _choose(result: RunResult, usable: set[str]) -> dict[Which, str]:
    """Choose the cases to show by Dice; fewer than three if there are fewer cases."""
    ordered = sorted((dice, case) for case, dice in result.per_case.items() if case in usable)
    if not ordered:
        return {}
    chosen: dict[Which, str] = {"best": ordered[-1][1]}
    if len(ordered) > 2:
        chosen["median"] = ordered[len(ordered) // 2][1]
    if len(ordered) > 1:
        chosen["worst"] = ordered[0][1]
    return chosen


def _picture(
    result: RunResult, scores: CaseScores, which: Which, references: Sequence[Path], images: Sequence[Path]
) -> Picture | None:
    reference_path = find_reference(scores, references)
    if reference_path is None or scores.prediction is None:
        return None
    try:
        reorient = reorients(result.run.provenance.path, reference_path.parent)
        reference, prediction = (read_image(file, reorient=reorient) for file in (reference_path, scores.prediction))
        image = _find_image(scores, images)
        ground = read_image(image, reorient=reorient) if image else None
    except BadInput:
        return None
    if reference.values.shape != prediction.values.shape:
        return None
    reference = reference.spaced_as(prediction)
    if ground is not None and ground.values.shape != reference.values.shape:
        ground = None
    if reference.values.ndim == 3:
        # All by the reference's orientation: they are compared voxel by voxel, whatever their headers say.
        orientation = reference.orientation
        reference, prediction = reference.upright(orientation), prediction.upright(orientation)
        ground = ground.upright(orientation) if ground else None
    keys = list(scores.dice)
    axis, index = best_slice(reference, prediction, keys)
    png = _draw(reference, prediction, ground, keys, axis, index)
    return Picture(
        result.run.task, result.run.name, which, scores.case, result.per_case[scores.case], png, axis, index,
        ground is not None,
    )  # fmt: skip


def _find_image(scores: CaseScores, folders: Sequence[Path]) -> Path | None:
    names = [f"{scores.case}{channel}{ending}" for channel in ("_0000", "") for ending in IMAGE_ENDINGS]
    return next((f for folder in folders for name in names if (f := folder / name).is_file()), None)


def _union(reference: Image, prediction: Image, keys: Sequence[str]) -> NDArray[np.bool_]:
    labels = sorted({label for key in keys for label in labels_of(key)})
    return mask_of(reference.values, labels) | mask_of(prediction.values, labels)


def best_slice(reference: Image, prediction: Image, keys: Sequence[str]) -> tuple[int, int]:
    """Axis and index of the slice to show: across the axis of the widest spacing, as it was acquired, where the smaller
    of reference and prediction covers most, else where the larger does. Slices of 2D images are (-1, 0)."""
    if reference.values.ndim == 2:
        return -1, 0
    axis = int(np.argmax(reference.spacing))
    labels = sorted({label for key in keys for label in labels_of(key)})
    others = tuple(a for a in range(3) if a != axis)
    r, p = (mask_of(image.values, labels).sum(axis=others) for image in (reference, prediction))
    if not (r.any() or p.any()):
        return axis, int(r.size // 2)
    # A prediction far from the reference must not hide missed parts, so it counts last.
    return axis, int(np.lexsort((p, r, np.minimum(r, p)))[-1])


def _draw(
    reference: Image, prediction: Image, ground: Image | None, keys: Sequence[str], axis: int, index: int
) -> bytes:
    def cut(values: NDArray[Any]) -> NDArray[Any]:
        return values if axis < 0 else values.take(index, axis=axis)

    spacing = [s for a, s in enumerate(reference.spacing) if a != axis]
    rows, columns = _window(cut(_union(reference, prediction, keys)), spacing)
    height = (rows.stop - rows.start) * spacing[0]
    width = (columns.stop - columns.start) * spacing[1]
    # Rows run from the feet up in coronal and sagittal slices.
    upwards = axis in (1, 2)
    scale = _SIDE_INCHES / max(height, width)
    figure = Figure(figsize=(max(width * scale, 0.6), max(height * scale, 0.6)), dpi=_DPI, facecolor="#0b0d10")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    extent = (0, width, 0, height) if upwards else (0, width, height, 0)
    background = cut(ground.values)[rows, columns] if ground is not None else np.zeros(shape)
    low, high = np.percentile(background, (1, 99.5)) if ground is not None else (0, 1)
    axes.imshow(
        background, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent, aspect="auto",
        origin="lower" if upwards else "upper", interpolation="bilinear",
    )  # fmt: skip
    y = (np.arange(shape[0]) + 0.5) * spacing[0]
    x = (np.arange(shape[1]) + 0.5) * spacing[1]
    for image, colour, style in ((reference, REFERENCE, "solid"), (prediction, PREDICTION, "solid")):
        values = cut(image.values)[rows, columns]
        for key in keys:
            mask = mask_of(values, labels_of(key))
            if mask.any() and min(shape) > 1:
                axes.contour(x, y, mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.5, linestyles=style)
    axes.set_xlim(0, width)
    axes.set_ylim((0, height) if upwards else (height, 0))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return content.getvalue()


def _window(mask: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[slice, slice]:
    """Return the part of a slice around the object, nearly square, or the whole slice if there is none."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    bounds = [np.flatnonzero(mask.any(axis=1 - a))[[0, -1]] for a in (0, 1)]
    centres = [(b[0] + b[1] + 1) / 2 for b in bounds]
    size = max((b[1] - b[0] + 1) * s for b, s in zip(bounds, spacing, strict=True))
    half = size * (0.5 + _AROUND) if size * _AROUND > _LEAST_MM else size / 2 + _LEAST_MM
    cuts = []
    for a in (0, 1):
        reach = half / spacing[a]
        cuts.append(slice(max(0, int(centres[a] - reach)), min(mask.shape[a], int(np.ceil(centres[a] + reach)))))
    return cuts[0], cuts[1]
