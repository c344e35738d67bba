"""Common parts of the monitor's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable


def fill(table: DataTable[str], labels: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the content of a table, including its columns.

    Widths are set, not left to the table: it measures cells when idle, and until then cuts them.
    """
    table.clear(columns=True)
    for label, *cells in zip(labels, *rows, strict=True):
        table.add_column(label, width=max(cell_len(text) for text in (label, *cells)))
    # As they are: names may hold brackets.
    shown: list[Any] = [[Text(cell) for cell in row] for row in rows]
    table.add_rows(shown)
