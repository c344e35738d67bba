"""Dice of a segmentation against a reference, by nnU-Net's own metric function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.evaluation.evaluate_predictions import compute_metrics

from ppgs.errors import BadInput
from ppgs.formatting import last_line
from ppgs.nnunet.inference.volumes import Classes


def dice(segmentation: Path, reference: Path, classes: Classes, ignore: int | None, reader: Any) -> dict[str, float]:
    """Return the Dice of each class, NaN if neither image has it; raises `BadInput` for images of different shape."""
    keys = {name: labels[0] if len(labels) == 1 else labels for name, labels in classes.items()}
    try:
        found = compute_metrics(str(reference), str(segmentation), _SameShape(reader), list(keys.values()), ignore)
    except BadInput:
        raise
    except Exception as error:  # every reader raises its own kinds
        raise BadInput(f"cannot be compared: {last_line(error)}", reference, "look at the reference") from None
    return {name: float(found["metrics"][key]["Dice"]) for name, key in keys.items()}


class _SameShape:
    """A reader that rejects a segmentation whose shape differs from the reference's."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._shape: tuple[int, ...] | None = None

    def read_seg(self, file: str) -> Any:
        values, properties = self._reader.read_seg(file)
        if self._shape not in (None, values.shape):
            what = f"the reference has shape {self._shape[1:]}, the segmentation {values.shape[1:]}"
            raise BadInput(what, file, "give the reference of this image")
        self._shape = values.shape
        return values, properties
