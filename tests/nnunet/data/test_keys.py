from __future__ import annotations

import math
from typing import Any

import pytest

from ppgs.nnunet.data.keys import BatchKey, KeyGroups, KeySampler
from ppgs.schedule import PlanFacts, Recipe, Stage, resolve
from ppgs.schedule.replan import in_parts, planned

SHORT = Recipe(epochs=10, iterations_per_epoch=2)


def key(**changes: Any) -> BatchKey:
    values: dict[str, Any] = {
        "phase": "train",
        "seed": 0,
        "epoch": 0,
        "iteration": 0,
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "cases": 2,
        "foreground_share": 0.33,
    }
    return BatchKey(**{**values, **changes})


@pytest.mark.parametrize(
    ("batch", "share", "foreground"),
    [(2, 0.33, 1), (3, 0.33, 1), (4, 0.33, 1), (9, 0.5, 5), (9, 0.33, 3), (2, 1, 2), (2, 0, 0)],
)
def test_the_foreground_share_is_rounded_as_nnunet_does(batch: int, share: float, foreground: int) -> None:
    k = key(batch_size=batch, cases=batch, foreground_share=share)
    chosen = [k.is_foreground(slot) for slot in range(batch)]
    assert sum(chosen) == foreground
    assert chosen == [not slot < round(batch * (1 - share)) for slot in range(batch)]


def test_the_share_is_the_stages(demo_facts: PlanFacts) -> None:
    stages = [
        Stage(patch_size=(16, 16, 16), batch_size=4, epochs=1, foreground_share=0.25),
        Stage(patch_size=(32, 32, 32), batch_size=2, epochs=1, foreground_share=1.0),
    ]
    schedule = resolve(SHORT, demo_facts).model_copy(update={"stages": tuple(stages), "iterations_per_epoch": 1})
    keys = [key for key in KeySampler(schedule, 0) if key is not None]
    assert [(k.phase, k.epoch, k.foreground_share) for k in keys if k.phase == "train"] == [
        ("train", 0, 0.25),
        ("train", 1, 1.0),
    ]
    assert {k.foreground_share for k in keys if k.phase == "validation"} == {0.33}


@pytest.mark.parametrize("mode", ["efficiency", "performance", "random"])
def test_neighbours_whose_batches_are_small_come_together_in_the_same_order(demo_facts: PlanFacts, mode: str) -> None:
    keys = KeySampler(resolve(Recipe(mode=mode, epochs=20, iterations_per_epoch=40), demo_facts), 0, epoch=1)  # type: ignore[arg-type]
    groups = list(KeyGroups(keys))
    assert [k for group in groups for k in group] == list(keys)
    for group in groups:
        assert len({(k.phase, k.patch_size, k.batch_size) for k in group}) == 1
        voxels = sum(k.batch_size * math.prod(k.patch_size) for k in group)
        assert len(group) == 1 or (len(group) <= 32 and voxels <= 2**21)
    if mode == "efficiency":
        # 8x8x8 voxels twice: as many as there may be.
        assert len(groups[0]) == 32


def test_no_key_is_known_beyond_the_first_epoch_of_a_stage_that_is_not_settled(demo_facts: PlanFacts) -> None:
    schedule = in_parts(resolve(Recipe(epochs=20, iterations_per_epoch=3), demo_facts))
    seconds = [1.0] * len(schedule.stages)
    schedule = planned(schedule, seconds, 20.0)
    sampler = KeySampler(schedule, 0)
    groups = iter(KeyGroups(sampler))
    found: list[BatchKey] = []
    while group := next(groups):
        found += group
    decided = schedule.decision_epoch
    assert {key.epoch for key in found} == set(range(decided + 1))
    assert next(groups) == () and next(groups) == ()
    while sampler.schedule.settled < len(sampler.schedule.stages):
        sampler.schedule = planned(sampler.schedule, seconds, 30.0)
    found += [key for group in groups for key in group]
    assert found == list(KeySampler(sampler.schedule, 0))
