"""The law that extrapolates two traces to every stage."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.estimate.scaling import NotLinear, Recording, constant, fit, peak


def recording(patch: tuple[int, ...], batch: int, *, square: bool = False) -> Recording:
    """A step with one parameter (1000 bytes), a statistic a sample (8) and a feature map (4 bytes a voxel)."""
    volume = batch * math.prod(patch)
    feature = volume**2 if square else 4 * volume
    events = [("+", 1000), ("+", 8 * batch), ("+", feature), ("w", 1000 + feature), ("-", 1), ("-", 2), ("+", 1000)]
    return Recording(patch=patch, batch=batch, events=tuple(events), flops=(10, 6 * batch, 54 * volume))  # type: ignore[arg-type]


@given(st.tuples(*[st.integers(1, 64)] * 3), st.integers(1, 300))
def test_two_recordings_give_any_other_exactly(patch: tuple[int, ...], batch: int) -> None:
    law = fit(recording((4, 4, 4), 2), recording((6, 6, 6), 3))
    real = recording(patch, batch)
    assert [e for e in law.events(patch, batch) if e[0] != "w"] == [e for e in real.events if e[0] != "w"]
    assert law.flops_at(patch, batch) == real.total_flops
    assert (
        peak(law.events(patch, batch)) == 1000 + 8 * batch + 4 * batch * math.prod(patch)
        or batch * math.prod(patch) * 4 + 8 * batch < 1000
    )


def test_workspace_follows_the_feature_maps_alone() -> None:
    law = fit(recording((4, 4, 4), 2), recording((6, 6, 6), 3))
    assert ("w", 4 * 5 * 1000) in law.events((10, 10, 10), 5)


def test_a_step_that_grows_otherwise_is_refused() -> None:
    with pytest.raises(NotLinear):
        fit(recording((4, 4, 4), 2, square=True), recording((6, 6, 6), 3, square=True))


def test_steps_of_different_operations_are_refused() -> None:
    other = recording((6, 6, 6), 3)
    with pytest.raises(NotLinear):
        fit(recording((4, 4, 4), 2), other.model_copy(update={"events": other.events[:-1]}))


def test_traces_that_cannot_tell_batch_from_volume_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        fit(recording((4, 4, 4), 2), recording((4, 4, 4), 3))


def test_constant_law_repeats_its_recording() -> None:
    real = recording((4, 4, 4), 2)
    law = constant(real)
    assert law.events((4, 4, 4), 2) == list(real.events)
    assert law.flops_at((4, 4, 4), 2) == real.total_flops


def test_peak_counts_what_is_alive_at_once() -> None:
    assert peak([("+", 5), ("-", 0), ("+", 3), ("+", 4), ("-", 1)]) == 7


def test_a_law_survives_its_file() -> None:
    law = fit(recording((4, 4, 4), 2), recording((6, 6, 6), 3))
    assert type(law).model_validate_json(law.model_dump_json()) == law
