"""The spacing of TIFF volumes, which have no place for it: nnU-Net keeps it in a JSON file beside them (`Tiff3DIO`)."""

from __future__ import annotations

import json
from pathlib import Path


def read_spacing(file: Path) -> tuple[float, float, float]:
    """Return the spacing (z, y, x) in mm that a file beside a volume gives; raises OSError and ValueError."""
    try:
        z, y, x = (float(size) for size in json.loads(file.read_text(encoding="utf-8"))["spacing"])
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{file.name} gives no spacing of three axes") from problem
    if not all(0 < size < float("inf") for size in (z, y, x)):
        raise ValueError(f"{file.name} gives no spacing of three axes")
    return z, y, x
