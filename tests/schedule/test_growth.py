import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.schedule import GROWTH, grow

# Stages by the 2024 and the 2025 rule and mean voxels relative to the final patch, from the method's table.
DECATHLON = {
    "BrainTumour": ((128, 128, 128), (32, 32, 32), (9, 0.380), (10, 0.344)),
    "Heart": ((80, 192, 160), (16, 32, 32), (13, 0.346), (14, 0.307)),
    "Hippocampus": ((40, 56, 40), (8, 8, 8), (14, 0.347), (15, 0.324)),
    "Prostate": ((20, 320, 256), (4, 64, 64), (11, 0.363), (12, 0.300)),
    "Pancreas": ((40, 224, 224), (8, 32, 32), (16, 0.334), (17, 0.305)),
    "HepaticVessel": ((64, 192, 192), (16, 32, 32), (13, 0.354), (14, 0.322)),
    "Spleen": ((64, 192, 160), (16, 32, 32), (12, 0.360), (13, 0.324)),
    "Colon": ((56, 192, 192), (8, 32, 32), (16, 0.328), (17, 0.268)),
}


@pytest.mark.parametrize("task", DECATHLON)
def test_the_decathlons_stages(task: str) -> None:
    final, step, *expected = DECATHLON[task]
    for rule, (stages, mean) in zip(("2024", "2025"), expected, strict=True):
        patches = grow(rule, final, step)  # type: ignore[arg-type]
        assert len(patches) == stages
        assert round(sum(map(math.prod, patches)) / stages / math.prod(final), 3) == mean


def test_2024_starts_at_twice_the_first_axis_and_takes_axes_in_turn() -> None:
    assert grow("2024", (24, 24, 16), (8, 8, 8)) == [
        (16, 8, 8),
        (16, 16, 8),
        (16, 16, 16),
        (24, 16, 16),
        (24, 24, 16),
    ]


def test_2025_starts_at_the_step_and_grows_the_smallest_axis() -> None:
    assert grow("2025", (8, 64, 32), (4, 32, 32)) == [(4, 32, 32), (8, 32, 32), (8, 64, 32)]


def test_a_start_beyond_the_plan_and_a_last_step_beyond_it_are_clipped() -> None:
    assert grow("2024", (12, 20), (8, 8))[0] == (12, 8)
    assert grow("2024", (12, 20), (8, 8))[-1] == (12, 20)
    assert grow("2025", (4, 6), (8, 3)) == [(4, 3), (4, 6)]


axes = st.integers(2, 3)
plans = axes.flatmap(
    lambda n: st.tuples(
        st.tuples(*[st.sampled_from([1, 2, 3, 4, 6, 8, 9, 12, 16, 27, 32])] * n),
        st.tuples(*[st.integers(1, 8)] * n),
    )
)


@given(plans, st.sampled_from(["2024", "2025"]))
def test_growth_on_reachable_plans(plan: tuple[tuple[int, ...], tuple[int, ...]], rule: str) -> None:
    step, multiples = plan
    final = tuple(s * m for s, m in zip(step, multiples, strict=True))
    patches = grow(rule, final, step)  # type: ignore[arg-type]
    assert patches[-1] == final
    for patch in patches:
        assert all(size % s == 0 for size, s in zip(patch, step, strict=True))
    for before, after in itertools.pairwise(patches):
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert sum(a - b for a, b in zip(after, before, strict=True)) in step


@given(
    axes.flatmap(lambda n: st.tuples(st.tuples(*[st.integers(1, 64)] * n), st.tuples(*[st.integers(1, 300)] * n))),
    st.sampled_from(sorted(GROWTH)),
)
def test_growth_on_any_plan(plan: tuple[tuple[int, ...], tuple[int, ...]], rule: str) -> None:
    step, final = plan
    patches = grow(rule, final, step)  # type: ignore[arg-type]
    assert patches[-1] == final
    assert len(set(patches)) == len(patches)
    for before, after in itertools.pairwise(patches):
        assert all(b <= a for b, a in zip(before, after, strict=True))
    for patch in patches:
        assert all(size % s == 0 or size == f for size, s, f in zip(patch, step, final, strict=True))


def test_octave_doubles_all_axes_together() -> None:
    assert grow("octave", (128, 128, 128), (32, 32, 32)) == [(32, 32, 32), (64, 64, 64), (128, 128, 128)]
    assert grow("octave", (40, 56, 40), (8, 8, 8)) == [(8, 8, 8), (16, 16, 16), (32, 32, 32), (40, 56, 40)]


@given(plans, st.sampled_from(sorted(GROWTH)), st.data())
def test_growth_from_a_given_first_patch(
    plan: tuple[tuple[int, ...], tuple[int, ...]], rule: str, data: st.DataObject
) -> None:
    step, multiples = plan
    final = tuple(s * m for s, m in zip(step, multiples, strict=True))
    first = tuple(s * data.draw(st.integers(1, m)) for s, m in zip(step, multiples, strict=True))
    patches = grow(rule, final, step, first=first)  # type: ignore[arg-type]
    assert (patches[0], patches[-1]) == (first, final)
    assert all(size % s == 0 for patch in patches for size, s in zip(patch, step, strict=True))


def test_a_first_patch_beyond_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        grow("2025", (32, 32), (8, 8), first=(40, 32))
