"""A picture of one slice of a segmentation on its image, for a quick look.

The slice lies across the axis of the widest spacing, as it was acquired, where most of the segmentation is. 3D images
are turned as radiologists look at them: the head or the front up, the patient's right on the left.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ppgs.formatting import shortened
from ppgs.nnunet.inference.volumes import Classes

Colour = tuple[int, int, int]

# Colours that people with any colour vision tell apart (after Okabe and Ito); more classes take further hues.
_FIRST: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (47, 191, 151), (204, 121, 167), (240, 228, 66), (232, 116, 59), (0, 114, 178)),
)
_BACKGROUND, _TEXT = (16, 21, 26), (221, 227, 232)
_SIDE, _LEAST_HEIGHT, _LEGEND, _LINE = 640, 200, 220, 20
_OPACITY = 0.45
# Shares of the intensities that are drawn black and white.
_WINDOW = (1, 99.5)


@dataclass(frozen=True)
class Slice:
    """One slice: grey values (None without an image), labels, pixel size in mm (rows, columns), and position."""

    grey: NDArray[Any] | None
    labels: NDArray[Any]
    spacing: tuple[float, float]
    place: str


def colours(count: int) -> list[Colour]:
    """Return `count` distinct colours, always the same for the same class."""
    found = list(_FIRST[:count])
    for number in range(count - len(found)):
        # The golden angle keeps each hue away from all before it.
        red, green, blue = colorsys.hsv_to_rgb(
            0.75 + number * 0.618034 % 1, (0.9, 0.55)[number % 2], (1, 0.7)[number % 3 == 2]
        )
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def overlay(image: Path, segmentation: Path, classes: Classes, title: str) -> bytes:
    """Return the PNG of a segmentation on its image, or on black if the image has another shape."""
    return _draw(best_slice(image, segmentation), classes, title)


def best_slice(image: Path, segmentation: Path) -> Slice:
    """Read the slice with the most foreground; the middle one if there is none."""
    found = _oriented(sitk.ReadImage(str(segmentation)))
    labels, spacing = sitk.GetArrayViewFromImage(found), tuple(reversed(found.GetSpacing()))
    axis = index = -1
    if labels.ndim == 3:
        axis = int(np.argmax(spacing))
        foreground = [int(np.count_nonzero(labels.take(i, axis))) for i in range(labels.shape[axis])]
        index = int(np.argmax(foreground)) if any(foreground) else len(foreground) // 2
    grey = _grey(image, labels.shape)

    def cut(values: NDArray[Any]) -> NDArray[Any]:
        if axis < 0:
            return np.array(values)
        # Rows of coronal and sagittal slices run from the feet up.
        return np.array(values.take(index, axis)[:: -1 if axis > 0 else 1])

    sides = [s for a, s in enumerate(spacing) if a != axis or axis < 0]
    place = f"slice {index + 1} of {labels.shape[axis]}" if axis >= 0 else ""
    return Slice(None if grey is None else cut(grey), cut(labels), (sides[0], sides[1]), place)


def _oriented(image: Any) -> Any:
    return sitk.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image


def _grey(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Return the voxels of an image's first channel; None if they do not have this shape."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    values: NDArray[Any] = sitk.GetArrayFromImage(_oriented(image))
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = values.mean(axis=-1)
    return values if values.shape == shape else None


def _draw(shown: Slice, classes: Classes, title: str) -> bytes:
    rows, columns = (n * mm for n, mm in zip(shown.labels.shape, shown.spacing, strict=True))
    scale = _SIDE / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    below = _background(shown.grey, (width, height))
    pixels = below.copy()
    labels = _enlarged(shown.labels, height, width)
    present: list[tuple[str, Colour]] = []
    for (name, values), colour in zip(classes.items(), colours(len(classes)), strict=True):
        mask = np.isin(labels, values)
        if mask.any():
            present.append((name, colour))
            # A region lies on the one that it is part of; only its own colour is shown.
            pixels[mask] = (1 - _OPACITY) * below[mask] + _OPACITY * np.array(colour)
            pixels[_border(mask)] = colour
    picture = Image.new("RGB", (width + _LEGEND, max(height, _LEAST_HEIGHT)), _BACKGROUND)
    picture.paste(Image.fromarray(pixels.round().astype(np.uint8)), (0, 0))
    _write_legend(ImageDraw.Draw(picture), width + 12, picture.height, [title, shown.place], present)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _background(grey: NDArray[Any] | None, size: tuple[int, int]) -> NDArray[np.float64]:
    if grey is None:
        return np.zeros((size[1], size[0], 3))
    values = np.nan_to_num(grey.astype(np.float64))
    low, high = np.percentile(values, _WINDOW)
    scaled = (np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    resized = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR), np.float64)
    return np.repeat(resized[..., None], 3, axis=2)


def _enlarged(labels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    rows, columns = ((np.arange(n) * of) // n for n, of in zip((height, width), labels.shape, strict=True))
    enlarged: NDArray[Any] = labels[rows][:, columns]
    return enlarged


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


def _write_legend(
    draw: Any, left: int, height: int, head: Sequence[str], present: Sequence[tuple[str, Colour]]
) -> None:
    # matplotlib's font has Latin, Greek and Cyrillic letters.
    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 13)
    letters, top = (_LEGEND - 24) // 8, 8
    for line in filter(None, head):
        draw.text((left, top), shortened(line, letters), fill=_TEXT, font=font)
        top += _LINE
    if not present:
        draw.text((left, top), "no foreground", fill=_TEXT, font=font)
    room = max(1, (height - top) // _LINE - 1)
    for name, colour in present[:room]:
        draw.rectangle((left, top + 3, left + 11, top + 14), fill=colour)
        draw.text((left + 18, top), shortened(name, letters - 2), fill=_TEXT, font=font)
        top += _LINE
    if len(present) > room:
        draw.text((left, top), f"and {len(present) - room} more", fill=_TEXT, font=font)
