"""Amount of work of the final validation, known before the training starts, and the time of a part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from ppgs.errors import StoppedEarly
from ppgs.nnunet.host.devices import seconds_of
from ppgs.nnunet.network.evaluation import evaluating
from ppgs.nnunet.network.precision import autocast

# Opening a case takes about a millisecond, on network storage much more: the mean over this many represents all.
_MOST_CASES = 100
# Timed passes after the first one, which warms up, and the seconds after which there are no more of them.
_PASSES, _LONG = 20, 1.0


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


def pass_seconds(trainer: Any) -> float | None:
    """Return seconds of one pass of the trainer's network over one window of the final validation; None if it fails.

    A sliding window takes one sample at a time, which is slower than a sample of a batch. A compiled network runs
    without the compiler, which would take longer than all that this is for. Call this before the training: beside its
    loader on a CPU a pass takes several times as long as in the validation.
    """
    network, device = trainer._module, trainer.device
    bfloat16 = trainer.settings.bfloat16 and device.type == "cuda"
    try:
        with evaluating(network, device), autocast(device, bfloat16=bfloat16):
            shape = (1, trainer.num_input_channels, *trainer.configuration_manager.patch_size)
            window = torch.zeros(shape, device=device)
            taken = [seconds_of(lambda: network(window), device)]
            while len(taken) <= _PASSES and sum(taken) < _LONG:
                taken.append(seconds_of(lambda: network(window), device))
            return median(taken[1:] or taken)
    except StoppedEarly:
        raise
    except Exception:  # whatever it is, training or validation reports it
        return None


def windows_of(image: Sequence[int], patch: Sequence[int]) -> int:
    """Return the number of windows of one image (z, y, x); with a flat patch each slice has its own."""
    slices = image[: len(image) - len(patch)]
    padded = tuple(max(size, edge) for size, edge in zip(image[len(slices) :], patch, strict=True))
    return math.prod(slices) * math.prod(map(len, compute_steps_for_sliding_window(padded, tuple(patch), 0.5)))
