"""The papers' growth rules: from the smallest patch the network can process to the plan's, one axis step a stage.

All patches and steps are in axis order (z, y, x) or (y, x), in voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Patch = tuple[int, ...]
Growth = Literal["2024", "2025"]


def _grow_2024(final: Patch, step: Patch, smallest: Patch) -> list[Patch]:
    """Start at (2 step_0, step_1, ...); one step on one axis a stage, axes in turn from axis 1 on (2407.07853)."""
    axes = len(final)
    start = (max(2 * step[0], smallest[0]), *smallest[1:])
    patch = [min(start[a], final[a]) for a in range(axes)]
    patches = [tuple(patch)]
    axis = 1
    while tuple(patch) != final:
        if patch[axis] < final[axis]:
            patch[axis] = min(patch[axis] + step[axis], final[axis])
            patches.append(tuple(patch))
        axis = (axis + 1) % axes
    return patches


def _grow_2025(final: Patch, step: Patch, smallest: Patch) -> list[Patch]:
    """Start at the step itself; grow the axis that is smallest after its step, the lowest on a tie (2510.23241)."""
    patch = [min(s, f) for s, f in zip(smallest, final, strict=True)]
    patches = [tuple(patch)]
    while tuple(patch) != final:
        growing = [a for a in range(len(final)) if patch[a] < final[a]]
        axis = min(growing, key=lambda a: (min(patch[a] + step[a], final[a]), a))
        patch[axis] = min(patch[axis] + step[axis], final[axis])
        patches.append(tuple(patch))
    return patches


GROWTH: dict[Growth, Callable[[Patch, Patch, Patch], list[Patch]]] = {"2024": _grow_2024, "2025": _grow_2025}


def grow(rule: Growth, final: Patch, step: Patch, smallest: Patch | None = None) -> list[Patch]:
    """All patches of a curriculum, smallest first, `final` last; a last step that would overshoot is clipped.

    `smallest` is what the network can process where that is more than one step on every axis.
    """
    smallest = step if smallest is None else smallest
    if not len(final) == len(step) == len(smallest) or min(*final, *step, *smallest) < 1:
        raise ValueError(f"patch {final}, step {step} and smallest {smallest} must have the same axes and be positive")
    return GROWTH[rule](tuple(final), tuple(step), tuple(smallest))
