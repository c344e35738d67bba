"""Per-sample transform parameters from uniform random numbers (batchgeneratorsv2's `RandomScalar`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from numpy.typing import NDArray
from torch import Tensor

from ppgs.errors import Untranslatable

Floats = NDArray[np.float64]
# Uniform numbers per scalar.
DRAWS = 2


def rows_of(chosen: NDArray[np.int64], device: torch.device) -> Tensor | slice:
    """Return an index for these rows of a tensor; a slice for a single one, so that indexing makes a view."""
    if len(chosen) == 1:
        return slice(int(chosen[0]), int(chosen[0]) + 1)
    return torch.from_numpy(chosen).to(device)


def require(transform: Any, **settings: Any) -> None:
    """Raise `Untranslatable` for a transform with other settings than these."""
    for name, value in settings.items():
        if getattr(transform, name) != value:
            raise Untranslatable.of(f"{type(transform).__name__} with {name}={getattr(transform, name)!r}")


def scalar(given: Any) -> Callable[[Floats], Floats]:
    """Return a function from uniform numbers (..., 2) in [0, 1) to values (...), distributed as `sample_scalar(given)`.

    Raises `Untranslatable` for anything but a number, a range, or a `BGContrast` over a range.
    """
    if isinstance(given, BGContrast) and isinstance(given.contrast_range, tuple | list):
        low, high = (float(v) for v in given.contrast_range)

        def contrast(u: Floats) -> Floats:
            below = low + (1 - low) * u[..., 1]
            above = max(low, 1) + (high - max(low, 1)) * u[..., 1]
            return np.where((u[..., 0] < 0.5) & (low < 1), below, above)

        return contrast
    if isinstance(given, int | float):
        return lambda u: np.full(u.shape[:-1], float(given))
    if isinstance(given, tuple | list) and len(given) == 2:
        low, high = float(given[0]), float(given[1])
        return lambda u: low + (high - low) * u[..., 1]
    raise Untranslatable.of(f"a scalar given as {given!r}")
