"""Pictures of a validation case as the training leaves them; `ppgs.nnunet.trainer.slices` writes and describes them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_MOST_BYTES = 8_000_000
_MOST_SIDE = 1024


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice: `image` 0 to 255, `reference` and `prediction` labels, all (y, x); `spacing` mm of (y, x)."""

    image: Any
    reference: Any
    prediction: Any
    spacing: tuple[float, float]
    index: int


class DamagedPicture(ValueError):
    """Raised for a file that is missing or is no picture; the text says why."""


def read_picture(path: Path) -> Picture:
    """Read a picture within bounded memory; raises `DamagedPicture`."""
    try:
        return _read(path)
    except OSError as problem:
        raise DamagedPicture(problem.strerror or str(problem)) from None
    except ValueError as problem:
        raise DamagedPicture(str(problem)) from None
    # zlib and NumPy's parser of headers have errors for each kind of damage: zlib.error, SyntaxError, TokenError, ...
    except Exception as problem:
        raise DamagedPicture(f"it is damaged ({problem})") from None


def _read(path: Path) -> Picture:
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > _MOST_BYTES:
            raise ValueError("it is larger than a picture")
    with np.load(path, allow_pickle=False) as file:
        image, reference, prediction = (file[name] for name in ("image", "reference", "prediction"))
        spacing = tuple(float(side) for side in file["spacing"])
        index = int(file["index"])
    if image.ndim != 2 or not 0 < min(image.shape) <= max(image.shape) <= _MOST_SIDE:
        raise ValueError(f"its shape {image.shape} is none of a picture")
    if not image.shape == reference.shape == prediction.shape:
        raise ValueError("image, reference and prediction differ in shape")
    if any(one.dtype.kind != "u" for one in (image, reference, prediction)):
        raise ValueError("image, reference or prediction are no whole numbers")
    if len(spacing) != 2 or not all(1e-6 < side < 1e6 for side in spacing):
        raise ValueError(f"its spacing {spacing} makes no sense")
    return Picture(image.astype(np.uint8), reference, prediction, (spacing[0], spacing[1]), index)


def fit(picture: Picture, width: int, height: int) -> tuple[int, int]:
    """Return width and height in square pixels that fill the available space and keep the proportions in mm."""
    rows, columns = (n * mm for n, mm in zip(picture.image.shape, picture.spacing, strict=True))
    scale = min(width / columns, height / rows)
    return max(round(columns * scale), 1), max(round(rows * scale), 1)


def resized(image: Any, size: tuple[int, int]) -> Any:
    """Resize the image smoothly to (width, height) pixels."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def resized_labels(labels: Any, size: tuple[int, int], wanted: Sequence[int] | None = None) -> Any:
    """Resize labels to (width, height) pixels with smooth borders; given `wanted`, only those, as label 1."""
    if wanted is not None:
        labels = np.isin(labels, wanted).astype(np.uint8)
    present = np.unique(labels)
    shares = [resized((labels == label).astype(np.uint8) * 255, size) for label in present]
    return present[np.argmax(shares, axis=0)]


def contour(labels: Any) -> Any:
    """Return the pixels (bool) of a label beside a smaller one: lines of one pixel."""
    around = np.pad(labels, 1, mode="edge")
    beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    return np.any([labels > other for other in beside], axis=0)


def overlaid(image: Any, layers: Iterable[tuple[Any, tuple[int, int, int], float]]) -> Any:
    """Blend layers (mask, colour, opacity) over a grey image; returns RGB (uint8)."""
    drawn = np.repeat(image[..., None].astype(float), 3, axis=2)
    for where, colour, opacity in layers:
        drawn[where] = (1 - opacity) * drawn[where] + opacity * np.array(colour, float)
    return drawn.round().astype(np.uint8)
