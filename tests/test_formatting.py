"""Text of numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.formatting import CARBON, ENERGY, amount, amount_of, counted, duration, number, shortened, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599.6, "1h00m"), (3900, "1h05m"),
        (99 * 3600 + 3599, "99h59m"), (100 * 3600, "4d04h"), (3e8, "3472d05h"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "N/A"), (0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (3.5 * 2**20, "3.5 MiB"), (2**41, "2048.0 GiB")],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 Wh"), (3e-9, "0 Wh"), (0.000123, "0.000123 Wh"), (3.21, "3.21 Wh"), (999.4, "999 Wh"), (999.6, "1 kWh"),
        (123456, "123 kWh"), (2.5e6, "2.5 MWh"), (2.5e10, "25000 MWh"),
    ],
)  # fmt: skip
def test_amounts(value: float, text: str) -> None:
    assert amount(value, ENERGY) == text


def test_a_part_is_in_the_unit_of_the_whole() -> None:
    assert amount_of(3.21, 15, ENERGY) == "3.21 of ~15 Wh"
    assert amount_of(321, 1500, CARBON) == "0.321 of ~1.5 kg"
    assert amount_of(1500, 1500, CARBON) == "1.5 kg"


@given(st.floats(0, 1e15))
def test_amounts_are_never_powers_of_ten(value: float) -> None:
    text, unit = amount(value, ENERGY).split()
    assert "e" not in text
    assert math.isclose(float(text) * 1000 ** ENERGY.index(unit), value, rel_tol=0.006, abs_tol=1e-4)


@given(st.text(), st.integers(-5, 40))
def test_what_is_shortened_keeps_its_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert len(short) == min(len(text), max(width, 3))
    if short != text:
        begin, end = short.split("…", 1) if "…" not in text else (short[0], short[-1])
        assert text.startswith(begin)
        assert text.endswith(end)


def test_the_unknown_and_the_single() -> None:
    assert number(None) == number(math.nan) == "-"
    assert number(0.98765, 2) == "0.99"
    assert (counted(1, "stage"), counted(2, "stage")) == ("1 stage", "2 stages")
