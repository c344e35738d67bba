"""Text in a terminal's cells, of which a letter may take two."""

from __future__ import annotations

from rich.cells import cell_len


def shortened(text: str, width: int) -> str:
    """Shorten text of more than `width` cells (at least three) to its beginning and end with `…` between."""
    if cell_len(text) <= (width := max(width, 3)):
        return text
    end = (width - 1) // 2
    return f"{_beginning(text, width - 1 - end)}…{_end(text, end)}"


def _beginning(text: str, width: int) -> str:
    return next(part for n in range(width, -1, -1) if cell_len(part := text[:n]) <= width)


def _end(text: str, width: int) -> str:
    return next(part for n in range(width, -1, -1) if cell_len(part := text[max(len(text) - n, 0) :]) <= width)
