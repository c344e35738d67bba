"""The model of the caching allocator, against its documented rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.estimate.allocator import MIB, Allocator, OutOfMemory, floor, replay
from ppgs.estimate.scaling import Event, peak


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB),
    ],
)
def test_segments_have_their_documented_sizes(size: int, reserved: int) -> None:
    allocator = Allocator()
    allocator.allocate(size)
    assert allocator.reserved == reserved


def test_sizes_are_rounded_to_512_bytes() -> None:
    allocator = Allocator()
    allocator.allocate(513)
    assert allocator.used == 1024


def test_a_released_block_is_taken_again() -> None:
    allocator = Allocator()
    block = allocator.allocate(30 * MIB)
    allocator.release(block)
    allocator.allocate(28 * MIB)
    assert allocator.reserved == 30 * MIB


def test_released_neighbours_merge() -> None:
    allocator = Allocator()
    whole = allocator.allocate(40 * MIB)
    allocator.release(whole)
    first, second = allocator.allocate(20 * MIB), allocator.allocate(20 * MIB)
    assert allocator.reserved == 40 * MIB
    allocator.release(first)
    allocator.release(second)
    allocator.allocate(40 * MIB)
    assert allocator.reserved == 40 * MIB


def test_cached_segments_are_given_back_before_the_budget_is_exceeded() -> None:
    allocator = Allocator(budget=50 * MIB)
    allocator.release(allocator.allocate(30 * MIB))
    allocator.allocate(40 * MIB)
    assert allocator.reserved == 40 * MIB


def test_a_budget_that_does_not_suffice_is_told() -> None:
    with pytest.raises(OutOfMemory):
        Allocator(budget=20 * MIB).allocate(30 * MIB)


def test_workspace_is_soft() -> None:
    events: list[Event] = [("+", 20 * MIB), ("w", 100 * MIB)]
    assert replay(events, workspace=1.0).peak_reserved == 120 * MIB
    assert replay(events, budget=50 * MIB, workspace=1.0).peak_reserved <= 50 * MIB


@st.composite
def programs(draw: st.DrawFn) -> list[Event]:
    """Allocations with every storage released at most once."""
    events: list[Event] = []
    alive: list[int] = []
    for number, size in enumerate(draw(st.lists(st.integers(1, 60 * MIB), min_size=1, max_size=40))):
        events.append(("+", size))
        alive.append(number)
        if draw(st.booleans()):
            events.append(("-", alive.pop(draw(st.integers(0, len(alive) - 1)))))
    return events


@given(programs())
def test_what_is_reserved_covers_what_is_used_and_the_floor_lies_between(events: list[Event]) -> None:
    allocator = replay(events)
    assert peak(events) <= allocator.peak_used <= allocator.peak_reserved
    least = floor(events)
    assert allocator.peak_used <= least <= allocator.peak_reserved
    assert replay(events, budget=least).peak_reserved <= least


@given(programs())
def test_releasing_everything_leaves_nothing_in_use(events: list[Event]) -> None:
    released = {value for kind, value in events if kind == "-"}
    total = sum(kind == "+" for kind, _ in events)
    rest: list[Event] = [("-", i) for i in range(total) if i not in released]
    allocator = replay([*events, *rest])
    assert allocator.used == 0
    # With all blocks merged again, the whole of what is reserved can be given back.
    allocator._release_cached()
    assert allocator.reserved == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60 * MIB)), max_size=60), st.integers(0, 200 * MIB))
def test_borrowing_is_taking_and_releasing(steps: list[tuple[bool, int]], more: int) -> None:
    """Borrowing equals taking and releasing, whatever is free and however small the budget is."""

    def run(borrow: bool) -> list[object]:
        allocator = Allocator(100 * MIB + more)
        held: list[Any] = []
        seen: list[object] = []
        for release, size in steps:
            try:
                if borrow:
                    allocator.borrow(size)
                else:
                    allocator.release(allocator.allocate(size))
                if release and held:
                    allocator.release(held.pop(size % len(held)))
                else:
                    held.append(allocator.allocate(size))
            except OutOfMemory:
                seen.append("full")
            seen.append((allocator.used, allocator.reserved, allocator.peak_used, allocator.peak_reserved))
        return seen

    assert run(borrow=True) == run(borrow=False)
