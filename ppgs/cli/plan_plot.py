"""A small plot of a stepwise curve, in braille dots."""

from __future__ import annotations

from collections.abc import Sequence

_LABEL = 7


def step_plot(lengths: Sequence[int], values: Sequence[float], width: int, height: int) -> list[str]:
    """Return lines of text that plot `values` from zero to the largest; value i lasts `lengths[i]` epochs.

    `width` and `height` in characters without the labels on the left (7 characters and an axis); one line more at the
    bottom names the epochs.
    """
    top = max(values) or 1.0
    columns, rows = 2 * width, 4 * height
    total = sum(lengths)
    levels = []
    for column in range(columns):
        epoch = (column + 0.5) * total / columns
        passed, index = 0, 0
        while index < len(lengths) - 1 and passed + lengths[index] <= epoch:
            passed += lengths[index]
            index += 1
        levels.append(max(1, round(values[index] / top * rows)))
    lines = []
    for row in range(height):
        text = "".join(_cell(levels[2 * c : 2 * c + 2], row, height) for c in range(width))
        label = f"{top:.3g}" if row == 0 else ("0" if row == height - 1 else "")
        lines.append(f"{label:>{_LABEL - 1}} │{text}")
    first, last = "0", f"{total} epochs"
    lines.append(" " * _LABEL + "└" + first + last.rjust(width - len(first)))
    return lines


# Bits of a braille cell from the bottom dot up, for its left and right column.
_DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))


def _cell(levels: Sequence[int], row: int, height: int) -> str:
    base = 4 * (height - 1 - row)
    bits = 0
    for level, dots in zip(levels, _DOTS, strict=True):
        for i in range(min(max(level - base, 0), 4)):
            bits |= dots[i]
    return chr(0x2800 + bits)
