"""`--from-stage` and `--start-patch`: a schedule without its first stages."""

from __future__ import annotations

from typing import Any

import pytest

from ppgs.errors import ScheduleError
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import Recipe, Schedule, dump, resolve
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
