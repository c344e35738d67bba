"""Figures as text, for tables and the report."""

from __future__ import annotations

import math
import re

from ppgs.compare.analysis.verdict import signed

MISSING = "–"


def task_label(task: str) -> str:
    """Shorten `Dataset004_Hippocampus` to `Hippocampus`."""
    return re.sub(r"^Dataset\d{3,}_", "", task)


def hours(seconds: float | None) -> str:
    """Format seconds as hours, or as minutes and seconds if they are few."""
    if seconds is None:
        return MISSING
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def number(value: float | None, digits: int, unit: str = "") -> str:
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.{digits}f}{unit}"


def significant(value: float | None, digits: int = 3) -> str:
    """Format a number with that many significant digits, never in exponent form."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def ratio(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}×"


def short_p(value: float) -> str:
    """Format a p-value for narrow columns."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def interval(ends: tuple[float, float]) -> str:
    """Format both ends of an interval of differences."""
    return f"{signed(ends[0])} to {signed(ends[1])}"


def percent(value: float) -> str:
    """Format a difference in percent."""
    return f"{signed(value, 2)} %"


def decimal_hours(seconds: float) -> str:
    return number(seconds / 3600, 2)


def petaflops(flops: float) -> str:
    return significant(flops / 1e15)


def gibibytes(count: int, digits: int = 1) -> str:
    return f"{count / 2**30:.{digits}f} GiB"
