"""Text of durations, sizes, energies, patches and errors of libraries."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Protocol

ENERGY, CARBON = ("Wh", "kWh", "MWh"), ("g", "kg", "t")


def duration(seconds: float | None) -> str:
    """Format seconds as `12d04h` (from 100 hours), `1h05m`, `3m20s` or `12s`; a dash if unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Estimate(Protocol):
    """Expected seconds and their probable range (`ppgs.runs.time_left.Span`)."""

    @property
    def low(self) -> float: ...
    @property
    def middle(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def uncalibrated(self) -> bool: ...


# Use the next unit from this many on; below, two digits suffice in the smaller one.
_UNITS, _MOST_OF_UNIT = (("s", 1), ("min", 60), ("h", 3600), ("days", 86400)), 99.5


def time_left(left: Estimate | None) -> str:
    """Return `about 12 min`, or `10-14 min` while uncertain by more than a tenth; a dash if unknown.

    `4-9 h (uncalibrated)` where it comes from a card's published figures.
    """
    if left is None:
        return "-"
    unit, factor = next((one for one in _UNITS if left.high < _MOST_OF_UNIT * one[1]), _UNITS[-1])
    mark = " (uncalibrated)" if left.uncalibrated else ""
    least, middle, most = (_two_digits(value / factor, unit) for value in (left.low, left.middle, left.high))
    if left.high - left.low <= 0.2 * left.middle or least == most:
        return f"about {middle} {unit}{mark}"
    return f"{least}-{most} {unit}{mark}"


def _two_digits(value: float, unit: str) -> str:
    return f"{value:.0f}" if value >= 9.95 or unit == "s" else f"{value:.1f}".removesuffix(".0")


def patch_text(patch: Sequence[int]) -> str:
    return "x".join(map(str, patch))


def spaced(patch: Sequence[int]) -> str:
    return " ".join(map(str, patch))


def counted(count: int, word: str) -> str:
    """Return `1 stage` or `3 stages`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def size(count: float | None) -> str:
    """Format bytes as `3.4 GiB`; N/A if unknown."""
    if count is None:
        return "N/A"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit in ("B", "KiB") else f"{count:.1f} {unit}"


def amount(value: float, units: Sequence[str]) -> str:
    """Format an amount as `3.2 Wh`, in the next unit from 1000 on."""
    factor, unit = _in_units(value, units)
    return f"{_digits(value / factor)} {unit}"


def amount_of(now: float, end: float, units: Sequence[str]) -> str:
    """Format `3.2 of ~15 Wh`; only the first amount if nothing is to come."""
    factor, unit = _in_units(end, units)
    return f"{_digits(now / factor)}{f' of ~{_digits(end / factor)}' if end > now else ''} {unit}"


def _in_units(most: float, units: Sequence[str]) -> tuple[float, str]:
    """Return a factor and its unit such that `most` over the factor has at most three digits before the point."""
    power = 0
    while power < len(units) - 1 and most >= 999.5 * 1000**power:
        power += 1
    return 1000.0**power, units[power]


def _digits(value: float) -> str:
    """Format three significant digits, never as a power of ten."""
    if value < 1e-4:
        return "0"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def dice_text(mean: float | None, classes: Mapping[str, float | None], by: str = "") -> str:
    """Return `Dice 0.8712  (anterior 0.8801  posterior 0.8623)`; `by` follows the mean."""
    return f"Dice {number(mean, 4)}{by}  ({'  '.join(f'{name} {number(dice, 4)}' for name, dice in classes.items())})"


def shortened(text: str, width: int) -> str:
    """Shorten text longer than `width` (at least three characters) to its beginning and end with `…` between."""
    if len(text) <= (width := max(width, 3)):
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[-end:]}"


def exit_text(code: int, *, named: bool = False) -> str:
    """Describe how a process ended by its `subprocess` return code; a signal by its number or name."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was killed by {signal.Signals(-code).name if named else f'signal {-code}'}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(error: Exception) -> str:
    """Return the last line of an error's text, where libraries explain it; its type if it has no text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][-160:]
