"""The Decathlon's facts that ship with ppgs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import PlansError
from ppgs.estimate.network import Network
from ppgs.estimate.shipped_tasks import read_task
from ppgs.plans import load_dataset, load_plans
from ppgs.schedule import MODES, PlanFacts, Recipe, resolve
from ppgs.shipped import tasks

# Stages by the 2024 and the 2025 rule, and mean voxels relative to the final patch (method, "Stages on the Decathlon").
STAGES = {
    "Task01_BrainTumour": (9, 10, 0.380, 0.344),
    "Task02_Heart": (13, 14, 0.346, 0.307),
    "Task03_Liver": (9, 10, 0.380, 0.344),
    "Task04_Hippocampus": (14, 15, 0.347, 0.324),
    "Task05_Prostate": (11, 12, 0.363, 0.300),
    "Task06_Lung": (13, 14, 0.346, 0.307),
    "Task07_Pancreas": (16, 17, 0.334, 0.305),
    "Task08_HepaticVessel": (13, 14, 0.354, 0.322),
    "Task09_Spleen": (12, 13, 0.360, 0.324),
    "Task10_Colon": (16, 17, 0.328, 0.268),
}


def test_all_ten_are_there_and_no_other() -> None:
    assert list(tasks()) == list(STAGES)


@pytest.mark.parametrize("name", list(tasks()))
def test_a_shipped_task(name: str) -> None:
    task = read_task(name)
    facts = task.made_for
    assert task.task == name
    assert facts.dataset == f"Dataset0{name[4:]}"
    assert len(task.network.strides[0]) == len(facts.patch_size)
    older = resolve(Recipe(mode="pgps-2024", epochs=STAGES[name][0]), facts)
    newer = resolve(Recipe(mode="efficiency", epochs=STAGES[name][1]), facts)
    assert (len(older.stages), len(newer.stages)) == STAGES[name][:2]
    for schedule, share in ((older, STAGES[name][2]), (newer, STAGES[name][3])):
        assert schedule.voxels_relative_to(facts.patch_size, facts.batch_size) == pytest.approx(share, abs=6e-4)
    for mode in MODES:
        assert resolve(Recipe(mode=mode), facts).stages[-1].patch_size == facts.patch_size


@pytest.mark.parametrize("name", list(tasks()))
def test_it_says_what_the_real_plans_say(name: str, shared: Path) -> None:
    folder = shared / "msd" / f"Dataset0{name[4:]}"
    plans = load_plans(folder / "nnUNetPlans.json")
    configuration = plans.configuration("3d_fullres")
    task = read_task(name)
    assert task.made_for == PlanFacts.of(plans, configuration)
    assert task.network == Network.of(configuration, load_dataset(folder / "dataset.json"))
    assert task.median_image_size == configuration.median_image_size


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(PlansError) as refused:
        read_task("Task01_BrainTumor")
    assert "Task01_BrainTumour" in refused.value.problems[0].remedy
