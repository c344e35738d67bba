"""Growth rules: from the first patch to the plan's, stage by stage.

All patches and steps are in axis order (z, y, x) or (y, x), in voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Patch = tuple[int, ...]
Growth = Literal["2024", "2025", "octave"]


def _grow_2024(final: Patch, step: Patch, first: Patch) -> list[Patch]:
    """Grow by one step on one axis per stage, in turn from axis 1; skip axes at `final` (2407.07853)."""
    patch, axis = list(first), 1
    patches = [first]
    while tuple(patch) != final:
        if patch[axis] < final[axis]:
            patch[axis] = min(patch[axis] + step[axis], final[axis])
            patches.append(tuple(patch))
        axis = (axis + 1) % len(final)
    return patches


def _grow_2025(final: Patch, step: Patch, first: Patch) -> list[Patch]:
    """Grow by one step per stage on the axis that is smallest after its step, the lowest on a tie (2510.23241)."""
    patch = list(first)
    patches = [first]
    while tuple(patch) != final:
        growing = [a for a in range(len(final)) if patch[a] < final[a]]
        axis = min(growing, key=lambda a: (min(patch[a] + step[a], final[a]), a))
        patch[axis] = min(patch[axis] + step[axis], final[axis])
        patches.append(tuple(patch))
    return patches


def _grow_octave(final: Patch, _: Patch, first: Patch) -> list[Patch]:
    """Double all axes together, up to `final`: few stages, each with up to eight times the volume (2D: four)."""
    patches = [first]
    while patches[-1] != final:
        patches.append(tuple(min(2 * size, most) for size, most in zip(patches[-1], final, strict=True)))
    return patches


GROWTH: dict[Growth, Callable[[Patch, Patch, Patch], list[Patch]]] = {
    "2024": _grow_2024,
    "2025": _grow_2025,
    "octave": _grow_octave,
}


def grow(
    rule: Growth, final: Patch, step: Patch, smallest: Patch | None = None, first: Patch | None = None
) -> list[Patch]:
    """Return all patches of a curriculum, smallest first, `final` last; a step beyond `final` is clipped.

    It begins with `first`, or else with the smallest patch: one step on every axis, with the 2024 rule two on axis 0,
    or `smallest` where the network cannot process less. Raises ValueError where the axes differ, a size is below one,
    or `first` exceeds `final`.
    """
    smallest = step if smallest is None else smallest
    begin = first or smallest
    if not len(final) == len(step) == len(smallest) == len(begin) or min(*final, *step, *smallest, *begin) < 1:
        raise ValueError(f"patch {final}, step {step} and first {begin} must have the same axes and be positive")
    if first is not None and any(f > most for f, most in zip(first, final, strict=True)):
        raise ValueError(f"the first patch {first} exceeds the final one {final}")
    if first is None and rule == "2024":
        begin = (max(2 * step[0], smallest[0]), *smallest[1:])
    begin = tuple(min(b, most) for b, most in zip(begin, final, strict=True))
    return GROWTH[rule](tuple(final), tuple(step), begin)
