"""The types of columns, and the steps from a column to the cells of a table. The columns are in `columns`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from ppgs.compare.statistics import finite

S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Table:
    """A table of some medium.

    `order` lists the keys of its columns from left to right; columns that it does not name come last. A column that
    says nothing about this table is shown as in the table given by `like`. `missing` is the text of an unknown value.
    """

    order: tuple[str, ...]
    missing: str = ""
    like: Table | None = None


@dataclass(frozen=True)
class Shown:
    """Appearance of a column in one table. Values that are not given are the column's own.

    In `title` and `hint` (of an HTML heading), names such as `{baseline}` are filled in by the table.
    """

    title: str = ""
    hint: str = ""
    # On a terminal that is too narrow, the column with the highest number goes first.
    priority: int = 99
    # Shown in the colour of the verdict.
    marked: bool = False
    value: Callable[[Any], Any] | None = None
    text: Callable[[Any], str] | None = None
    # From the value to the number that HTML sorts by, if the value itself is not a number.
    sort: Callable[[Any], float | None] | None = None
    # From the row to what is shown if there is no value: words, or a number.
    instead: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Column(Generic[S_contra]):
    """One figure of a result: its key in JSON and CSV, its unrounded value, its text, and the tables that show it.

    `shown` is a title (empty: the key) for a table that needs nothing else, and a `Shown` otherwise.
    """

    key: str
    value: Callable[[S_contra], Any]
    text: Callable[[Any], str] = str
    shown: Mapping[Table, Shown | str] = field(default_factory=dict)
    json: bool = True
    numeric: bool = True

    def shown_in(self, table: Table) -> Shown | None:
        """Return how the table shows the column, or None if it does not."""
        found = self.shown.get(table)
        if found is None and table.like is not None:
            found = self.shown.get(table.like)
        return Shown(found) if isinstance(found, str) else found


@dataclass(frozen=True)
class Cell:
    """Text, and the number that it is sorted by, if any."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class TableColumn(Generic[R]):
    """A column in one table. `cell` and `raw` (the value as in JSON) take a row."""

    key: str
    title: str
    hint: str
    numeric: bool
    priority: int
    marked: bool
    cell: Callable[[R], Cell]
    raw: Callable[[R], Any]


# Columns of one kind of result, and the function that finds this result in a row (None if the row has none).
Group = tuple[Sequence[Column[Any]], Callable[[R], Any]]


def columns_of(
    table: Table, groups: Iterable[Group[R]], names: Mapping[str, Any] | None = None
) -> list[TableColumn[R]]:
    """Return the columns that the table shows, from left to right."""
    found = [
        _for_table(table, column, shown, pick, names or {})
        for columns, pick in groups
        for column in columns
        if (shown := column.shown_in(table))
    ]
    place = {key: index for index, key in enumerate(table.order)}
    return sorted(found, key=lambda column: place.get(column.key, len(place)))


def _for_table(
    table: Table, column: Column[Any], shown: Shown, pick: Callable[[R], Any], names: Mapping[str, Any]
) -> TableColumn[R]:
    value_of, text_of = shown.value or column.value, shown.text or column.text

    def cell(row: R) -> Cell:
        subject = pick(row)
        value = None if subject is None else value_of(subject)
        if value is None and shown.instead is not None:
            value = shown.instead(row)
        if value is None:
            return Cell("" if subject is None else table.missing)
        if isinstance(value, str):
            return Cell(value)
        return Cell(text_of(value), _sorted_by(shown.sort(value) if shown.sort else value))

    def raw(row: R) -> Any:
        subject = pick(row)
        return None if subject is None else plain(value_of(subject))

    return TableColumn(
        key=column.key,
        title=shown.title.format(**names) or column.key,
        hint=shown.hint.format(**names),
        numeric=column.numeric,
        priority=shown.priority,
        marked=shown.marked,
        cell=cell,
        raw=raw,
    )


def _sorted_by(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not math.isnan(value) else None


def record(columns: Sequence[Column[Any]], subject: Any) -> dict[str, Any]:
    """Return the JSON object of one result."""
    return {column.key: plain(column.value(subject)) for column in columns if column.json}


def plain(value: Any) -> Any:
    """Convert a value for JSON: NaN and infinity to None, tuples to lists, dataclasses to objects."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return str(value) if isinstance(value, Path) else value
