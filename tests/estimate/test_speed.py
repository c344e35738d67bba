"""From measured steps to seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.estimate.speed import Point, fit_speed


def point(flops: int, seconds: float) -> Point:
    return Point(patch=(8, 8, 8), batch=2, flops=flops, seconds=seconds)


def test_a_line_is_found_again() -> None:
    speed = fit_speed([point(f, 0.05 + f / 2e11) for f in (10**9, 10**10, 10**11, 5 * 10**11)], "net")
    assert speed.overhead == pytest.approx(0.05)
    assert speed.rate == pytest.approx(2e11)
    assert speed.seconds(10**12, "another") == pytest.approx(0.05 + 5)


@given(
    st.lists(
        st.tuples(st.integers(10**9, 10**12), st.floats(0.01, 10)), min_size=1, max_size=8, unique_by=lambda p: p[0]
    )
)
def test_measured_points_are_met_and_nothing_is_negative(measured: list[tuple[int, float]]) -> None:
    speed = fit_speed([point(*p) for p in measured], "net")
    for flops, seconds in measured:
        assert speed.seconds(flops, "net") == pytest.approx(seconds)
    assert speed.overhead >= 0
    assert speed.rate > 0
    assert speed.seconds(10**8, "net") >= 0


def test_between_points_the_correction_lies_between_theirs() -> None:
    speed = fit_speed([point(10**9, 0.1), point(10**10, 0.11), point(10**11, 1.0)], "net")
    ratios = [p.seconds / speed.line(p.flops) for p in speed.points]
    middle = speed.seconds(3 * 10**9, "net") / speed.line(3 * 10**9)
    assert min(ratios[:2]) <= middle <= max(ratios[:2])


def test_no_point_is_no_speed() -> None:
    with pytest.raises(ValueError, match="no step"):
        fit_speed([], "net")
