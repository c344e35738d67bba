"""Memory needs of a segmentation and the place of its logits; decided before the work begins."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from ppgs.errors import Problem
from ppgs.formatting import size
from ppgs.nnunet.inference.window import Place
from ppgs.processes.limits import available_memory

# Bytes a voxel at the peak of nnU-Net's preprocessing and of the export, rounded up from a CT of 200x256x256.
_PREPARE_IMAGE, _PREPARE_CHANNEL = 22, 12
_EXPORT_IMAGE, _EXPORT_PREDICTED = 18, 10
# Each further class that is resampled at the same time.
_CLASS_IMAGE, _CLASS_PREDICTED = 13, 12
# All classes together, as nnU-Net exports them: resampled in float64, the result in half and its probabilities.
_EXPORT_WHOLE_IMAGE, _EXPORT_WHOLE_PREDICTED = 12, 10
# Memory, of a device too, that is left to everything else.
_SPARE = 1 << 30
_SPARE_SHARE = 0.2


@dataclass(frozen=True)
class Needs:
    """Bytes that one image takes: in preprocessing, at the network's resolution, as logits and in the export.

    `abreast` are those of each further class that the export resamples at the same time; 0 if it cannot.
    """

    preparing: int
    data: int
    logits: int
    exporting: int
    abreast: int = 0

    @property
    def memory(self) -> int:
        """The main memory without the logits."""
        return self.data + max(self.preparing, self.exporting)


@dataclass(frozen=True)
class Room:
    """Bytes that are free: on the device (None on the CPU), in main memory and on the disk of the output."""

    device: int | None
    memory: int
    disk: int

    @classmethod
    def now(cls, device: torch.device, folder: Path) -> Room:
        free = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
            free = torch.cuda.mem_get_info(device)[0]
        return cls(free, available_memory(), shutil.disk_usage(folder).free)


def needs_of(
    shape: Sequence[int],
    spacing: Sequence[float],
    plans: Any,
    setup: Any,
    *,
    heads: int,
    channels: int,
    folds: int,
    together: bool,
    labels: int = 0,
) -> Needs:
    """Return the needs of an image of this shape (z, y, x) as read, if nothing of it is cropped.

    `labels` are the previous stage's, each of them a channel of a cascade's second stage. `together`: all classes are
    exported together, as nnU-Net does.
    """
    shape = [shape[axis] for axis in plans.transpose_forward]
    spacing = [spacing[axis] for axis in plans.transpose_forward]
    target = [*spacing[: len(shape) - len(setup.spacing)], *setup.spacing]
    resampled = [int(n) for n in compute_new_shape(shape, spacing, target)]
    padded = _padded(resampled, setup)
    image, predicted = math.prod(shape), math.prod(resampled)
    preparing = image * (_PREPARE_IMAGE + _PREPARE_CHANNEL * channels) + predicted * (8 + 4 * channels)
    # The labels as channels, and a copy of all channels.
    preparing += predicted * 4 * (2 * labels + channels) if labels else 0
    exporting = _exporting(image, predicted, heads, together=together)
    data = padded * 4 * (channels + labels) * 2
    abreast = 0 if together else image * _CLASS_IMAGE + predicted * _CLASS_PREDICTED
    return Needs(preparing, data, 2 * padded * heads * min(folds, 2), exporting, abreast)


def needs_of_prepared(data: Sequence[int], written: int, setup: Any, *, heads: int, together: bool) -> Needs:
    """Return the needs of a preprocessed image of this shape (c, z, y, x), of which `written` voxels are exported."""
    channels, *shape = data
    padded = _padded(shape, setup)
    exporting = _exporting(written, math.prod(shape), heads, together=together)
    return Needs(0, padded * 4 * channels, 2 * padded * heads, exporting)


def _padded(shape: Sequence[int], setup: Any) -> int:
    """Return the voxels of an image that is padded to the patch where it is smaller."""
    patch = [*[1] * (len(shape) - len(setup.patch_size)), *setup.patch_size]
    return math.prod(map(max, shape, patch))


def _exporting(image: int, predicted: int, heads: int, *, together: bool) -> int:
    if together:
        return heads * (image * _EXPORT_WHOLE_IMAGE + predicted * _EXPORT_WHOLE_PREDICTED)
    return image * _EXPORT_IMAGE + predicted * _EXPORT_PREDICTED


def choose_place(needs: Needs, room: Room, where: object) -> Place | Problem:
    """Choose where an image's logits go: the device while they fit, else memory, else a file; or why none works."""
    memory = int(room.memory * (1 - _SPARE_SHARE))
    if needs.memory > memory:
        what = f"its segmentation needs {size(needs.memory)} of memory; {size(memory)} can be used"
        return Problem(what, str(where), "close other programs, crop the image, or use a machine with more memory")
    if needs.memory + needs.logits <= memory:
        # From the device they come to memory for the export.
        on_device = room.device is not None and (needs.logits + needs.data + _SPARE < room.device * (1 - _SPARE_SHARE))
        return "device" if on_device else "memory"
    if needs.logits + _SPARE <= room.disk:
        return "file"
    what = (
        f"its logits need {size(needs.logits)}; memory has room for {size(max(memory - needs.memory, 0))}, "
        f"the disk of the output for {size(max(room.disk - _SPARE, 0))}"
    )
    return Problem(what, str(where), "make room on the disk, give an output folder on a larger one, or crop the image")
