"""Amount of work of the final validation, known before the training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

# Opening a case takes about a millisecond, on network storage much more: the mean over this many represents all.
_MOST_CASES = 100


def final_validation(trainer: Any) -> dict[str, int]:
    """Return validation cases, their sliding windows, and network passes per window.

    nnU-Net's validation moves the plan's patch in steps of half its size and mirrors every window along all axes that
    the training mirrored. Call this before a checkpoint is restored, which has mirroring axes as well.
    """
    *_, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    _, validation = trainer.get_tr_and_val_datasets()
    cases = list(validation.identifiers)
    chosen = cases[:: max(math.ceil(len(cases) / _MOST_CASES), 1)]
    patch = trainer.configuration_manager.patch_size
    windows = sum(windows_of(validation.load_case(case)[0].shape[1:], patch) for case in chosen)
    return {
        "cases": len(cases),
        "windows": round(windows * len(cases) / max(len(chosen), 1)),
        "passes": 2 ** len(axes or ()),
    }


def windows_of(image: Sequence[int], patch: Sequence[int]) -> int:
    """Return the number of windows of one image (z, y, x); with a flat patch each slice has its own."""
    slices = image[: len(image) - len(patch)]
    padded = tuple(max(size, edge) for size, edge in zip(image[len(slices) :], patch, strict=True))
    return math.prod(slices) * math.prod(map(len, compute_steps_for_sliding_window(padded, tuple(patch), 0.5)))
