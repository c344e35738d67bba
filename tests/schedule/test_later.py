"""`--from-stage` and `--start-patch`: a schedule without its first stages."""

from __future__ import annotations

from typing import Any

import pytest

from ppgs.errors import ScheduleError
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import Recipe, Schedule, dump, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.requests import make_schedule
from tests.helpers.facts import HIPPOCAMPUS

FACTS = HIPPOCAMPUS.model_copy(update={"batch_size": 2})


def made(content: Recipe | Schedule, **options: Any) -> Schedule:
    asked = TrainingRequest(task="demo", schedule=dump(content), schedule_name="given", **options)
    return make_schedule(asked, FACTS)


@pytest.mark.parametrize("mode", ["efficiency", "performance", "pgps-2024", "pgps-plus-2024"])
def test_a_recipe_keeps_its_length_and_the_later_patches(mode: Any) -> None:
    recipe = Recipe(mode=mode, epochs=60)
    whole = made(recipe)
    for number in range(1, len(whole.stages) + 1):
        later = made(recipe, from_stage=number)
        assert [s.patch_size for s in later.stages] == [s.patch_size for s in whole.stages[number - 1 :]]
        assert later.epochs == whole.epochs


def test_the_first_patch_may_be_given() -> None:
    schedule = made(Recipe(epochs=60), start_patch="24,32,24")
    assert (schedule.stages[0].patch_size, schedule.epochs) == ((24, 32, 24), 60)
    assert made(Recipe(epochs=60), start_patch="24x32x24") == schedule


def test_skipped_stages_need_no_epochs() -> None:
    stages = len(made(Recipe(epochs=60)).stages)
    with pytest.raises(ScheduleError, match="fewer than"):
        made(Recipe(epochs=60), epochs=3)
    assert len(made(Recipe(epochs=60), epochs=3, from_stage=stages - 2).stages) == 3


def test_explicit_stages_lose_their_epochs_with_them() -> None:
    whole = resolve(Recipe(epochs=60), FACTS)
    later = made(whole, from_stage=3)
    assert later.stages == whole.stages[2:]
    assert later.epochs == sum(s.epochs for s in whole.stages[2:])
    patch = ",".join(map(str, whole.stages[2].patch_size))
    assert made(whole, start_patch=patch) == later
    assert made(whole, from_stage=1) == whole


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"from_stage": 99}, "stages"),
        ({"from_stage": 2, "start_patch": "24,32,24"}, "both"),
        ({"start_patch": "large"}, "no patch size"),
        ({"start_patch": "24"}, "no patch size"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    for content in (Recipe(epochs=60), resolve(Recipe(epochs=60), FACTS)):
        with pytest.raises(ScheduleError, match=said):
            made(content, **options)


def test_a_patch_that_no_stage_has_is_refused() -> None:
    with pytest.raises(ScheduleError, match="no stage with this patch"):
        made(resolve(Recipe(epochs=60), FACTS), start_patch="25,32,24")


def test_a_given_first_patch_grows_on_as_it_did() -> None:
    """The 2024 rule takes turns from the first patch on, so that where it begins matters."""
    recipe = Recipe(mode="pgps-2024", epochs=60, start=(16, 16, 16))
    whole = [s.patch_size for s in made(recipe).stages]
    assert [s.patch_size for s in made(recipe, from_stage=2).stages] == whole[1:]


def test_a_warm_up_longer_than_what_is_left_is_refused() -> None:
    whole = resolve(Recipe(epochs=60, learning_rate=LearningRate(warmup=30)), FACTS)
    last = whole.stages[-1]
    assert last.epochs < 30
    for options in ({"from_stage": len(whole.stages)}, {"start_patch": ",".join(map(str, last.patch_size))}):
        with pytest.raises(ScheduleError, match="warm-up of 30 epochs leaves none"):
            made(whole, **options)


def test_the_batch_size_is_that_of_the_option() -> None:
    assert {s.batch_size for s in made(Recipe(epochs=60), batch_size=5).stages} == {5}
    with pytest.raises(ScheduleError, match="--batch-size"):
        made(resolve(Recipe(epochs=60), FACTS), batch_size=5)
