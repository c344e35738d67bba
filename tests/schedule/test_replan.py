"""Planning on the way: the rule, and trainings on simulated machines that end when they should."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppgs.schedule import Recipe, Schedule, Stage, dump, parse, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.pacing import Power
from ppgs.schedule.replan import in_parts, planned, share_out, with_all_settled
from tests.helpers.facts import HIPPOCAMPUS as FACTS


@st.composite
def shapes(draw: st.DrawFn) -> Schedule:
    """A schedule of so many epochs that only its shape counts."""
    mode = draw(st.sampled_from(["efficiency", "performance", "constant", "random", "pgps-2024"]))
    rate = LearningRate(decay=draw(st.sampled_from(["epoch", "work"])), warmup=draw(st.integers(0, 5)))
    pacing = "equal" if mode in ("constant", "random") else draw(st.sampled_from(["equal", "volume", Power(power=0.5)]))
    return resolve(Recipe(mode=mode, epochs=100_000, pacing=pacing, learning_rate=rate), FACTS)  # type: ignore[arg-type]


def costs(schedule: Schedule, full: float = 1.0, fixed: float = 0.1) -> list[float]:
    """Seconds of an epoch of every stage where the full patch takes `full`."""
    work = [s.voxels * s.batch_size for s in schedule.stages]
    return [full * (fixed + (1 - fixed) * w / work[-1]) for w in work]


def replay(schedule: Schedule, factors: list[float], full: float) -> list[Schedule]:
    """All versions of a schedule whose every plan finds `factor` times the time that is left."""
    versions = [in_parts(schedule)]
    while versions[-1].settled < len(versions[-1].stages):
        now = versions[-1]
        factor = factors[now.settled % len(factors)]
        versions.append(planned(now, costs(now, full), 100.0 * factor * (1 - now.decision_epoch / max(now.epochs, 1))))
    return versions


factors = st.lists(st.floats(0.2, 5.0), min_size=1, max_size=20)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(shapes(), factors, st.floats(0.05, 3.0))
def test_no_plan_changes_what_was_trained(schedule: Schedule, factors: list[float], full: float) -> None:
    versions = replay(schedule, factors, full)
    for before, after in itertools.pairwise(versions):
        decided = before.decision_epoch
        assert after.decision_epoch > decided or after.settled == len(after.stages)
        for epoch in range(decided):
            assert before.stage_index_at(epoch) == after.stage_index_at(epoch)
            assert before.stage_at(epoch) == after.stage_at(epoch)
            assert before.decay_share_at(epoch) == after.decay_share_at(epoch)
            assert before.validation_iterations_at(epoch) == after.validation_iterations_at(epoch)
        # Prefetching runs into the first epoch that no plan has settled.
        assert before.stage_at(decided).like(after.stage_at(decided))
        assert before.validation_iterations_at(decided) == after.validation_iterations_at(decided)
    last = versions[-1]
    # The frozen schedule alone replays the training.
    assert parse(dump(last)) == last
    shares = [last.decay_share_at(epoch) for epoch in range(last.epochs + 1)]
    assert shares[0] == 0 and shares[-1] == 1
    assert all(a < b for a, b in itertools.pairwise(shares))
    assert last.learning_rate_at(last.epochs) == 0
    sizes = [s.patch_size for s in schedule.stages]
    assert [s.patch_size for s in last.stages][: len(sizes)] == sizes


@given(shapes())
def test_a_plan_that_nobody_changes_is_the_schedule(schedule: Schedule) -> None:
    cut = with_all_settled(in_parts(schedule))
    assert cut.epochs == schedule.epochs
    for epoch in {0, 1, *(s for s in range(0, schedule.epochs, 997)), schedule.epochs - 1}:
        assert cut.stage_at(epoch).like(schedule.stage_at(epoch))
        assert cut.validation_iterations_at(epoch) == schedule.validation_iterations_at(epoch)
        assert cut.decay_share_at(epoch) == pytest.approx(schedule.decay_share_at(epoch), rel=1e-9, abs=1e-12)


def test_what_restarts_at_every_stage_keeps_its_stages() -> None:
    schedule = resolve(Recipe(epochs=300, learning_rate=LearningRate(restart_at_stage=True)), FACTS)
    assert in_parts(schedule).stages == schedule.stages


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0.01, 10), st.integers(0, 1)), min_size=1, max_size=20),
    st.floats(-5, 1e4),
)
def test_shared_out_epochs_take_the_time_that_is_left(parts: list[tuple[int, float, int]], left: float) -> None:
    weights, seconds, least = [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]
    counts = share_out(weights, seconds, left, least)
    assert all(count >= smallest for count, smallest in zip(counts, least, strict=True))
    total = sum(n * each for n, each in zip(counts, seconds, strict=True))
    smallest = sum(n * each for n, each in zip(least, seconds, strict=True))
    if left <= smallest:
        assert counts == least or total <= smallest + 1e-9
    else:
        assert abs(total - left) <= max(seconds) + 1e-6


def test_parts_of_the_full_patch_vanish_where_time_has_run_out() -> None:
    schedule = in_parts(resolve(Recipe(epochs=1000), FACTS))
    assert [s.patch_size for s in planned(schedule, costs(schedule), -1.0).stages] == [
        s.patch_size for s in resolve(Recipe(epochs=15), FACTS).stages
    ]


def test_all_settled_is_not_planned_again() -> None:
    with pytest.raises(ValueError, match="settled"):
        planned(resolve(Recipe(epochs=300), FACTS), [1.0] * 15, 10.0)


def test_shares_that_fall_are_refused() -> None:
    stages = (Stage(patch_size=(8, 8), batch_size=2, epochs=4),) * 2
    with pytest.raises(ValueError, match="rising"):
        Schedule(stages=stages, decayed=(0.5, 0.4))
    with pytest.raises(ValueError, match="rising"):
        Schedule(stages=stages, decayed=(0.1, 0.4, 1.0))
