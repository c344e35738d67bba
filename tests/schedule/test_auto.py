"""Mode `auto`: the end of the curriculum in short trainings, all of it in long ones."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.auto import first_share
from ppgs.schedule.model import LearningRate
from tests.helpers.facts import HIPPOCAMPUS as FACTS


def auto(epochs: int, iterations: int, **more: object) -> Schedule:
    return resolve(
        Recipe.model_validate({"mode": "auto", "epochs": epochs, "iterations_per_epoch": iterations, **more}), FACTS
    )


def work(schedule: Schedule) -> float:
    """Iterations at the final patch."""
    return schedule.voxels_relative_to(FACTS.patch_size, 9) * schedule.epochs * schedule.iterations_per_epoch


def test_a_short_training_starts_at_a_tenth_of_the_volume_with_decay_over_work() -> None:
    for epochs, iterations in ((12, 1), (20, 20), (70, 20)):
        short = auto(epochs, iterations)
        late = resolve(
            Recipe(start=0.1, epochs=epochs, iterations_per_epoch=iterations, learning_rate=LearningRate(decay="work")),
            FACTS,
        )
        assert work(short) <= 800
        assert short.stages == late.stages
        assert short.learning_rate == late.learning_rate


@given(st.integers(1, 12), st.integers(1, 250))
def test_any_number_of_epochs_is_enough(epochs: int, iterations: int) -> None:
    schedule = auto(epochs, iterations)
    assert schedule.epochs == epochs
    assert len(schedule.stages) <= epochs
    assert schedule.stages[-1].patch_size == FACTS.patch_size


def test_a_long_training_is_the_whole_curriculum_with_decay_over_work() -> None:
    whole = resolve(Recipe(epochs=1000, learning_rate=LearningRate(decay="work")), FACTS)
    assert auto(1000, 250).stages == whole.stages
    assert auto(1000, 250).learning_rate == whole.learning_rate


@given(st.integers(15, 400), st.integers(1, 250))
def test_it_starts_where_its_own_work_says(epochs: int, iterations: int) -> None:
    schedule = auto(epochs * 100, iterations)
    share = math.prod(schedule.stages[0].patch_size) / math.prod(FACTS.patch_size)
    # But for the rounding of epochs.
    assert share >= 0.9 * first_share(work(schedule))
    assert schedule.epochs == epochs * 100


def test_longer_trainings_start_no_later() -> None:
    stages = [len(auto(epochs, 20).stages) for epochs in range(1, 200)]
    assert all(a <= b for a, b in itertools.pairwise(stages))
    assert stages[0] == 1 and stages[-1] == 15 and len(set(stages)) > 4


def test_what_is_given_is_taken() -> None:
    assert auto(20, 20, start=[16, 16, 16]).stages[0].patch_size == (16, 16, 16)
    warm = auto(100, 250, learning_rate={"warmup": 5})
    assert warm.learning_rate == LearningRate(warmup=5)


def test_the_rule_at_its_ends() -> None:
    assert first_share(0) == first_share(800) == 0.1
    assert first_share(1200) == first_share(1e9) == 0
    shares = [first_share(x) for x in range(800, 1200, 10)]
    assert all(a > b for a, b in itertools.pairwise(shares))
