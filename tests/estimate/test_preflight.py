"""Checks of `train` before a schedule may start."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import DoesNotFit
from ppgs.estimate.preflight import check_memory
from ppgs.plans import load_dataset, load_plans
from ppgs.schedule import PlanFacts, Recipe, resolve


def test_a_schedule_is_let_through_refused_or_changed(shared: Path) -> None:
    folder = shared / "msd" / "Dataset004_Hippocampus"
    plans, dataset = load_plans(folder / "nnUNetPlans.json"), load_dataset(folder / "dataset.json")
    configuration = plans.configuration("3d_fullres")
    schedule = resolve(Recipe(), PlanFacts.of(plans, configuration))
    same, estimate, changes = check_memory(schedule, plans, configuration, dataset, gpu_memory="8GiB")
    assert (same, changes) == (schedule, [])
    assert estimate.fits
    with pytest.raises(DoesNotFit):
        check_memory(schedule, plans, configuration, dataset, gpu_memory="1GiB")
    fitted, estimate, changes = check_memory(
        schedule, plans, configuration, dataset, gpu_memory="1GiB", apply_remedies=True
    )
    assert estimate.fits
    assert changes
    assert [s.patch_size for s in fitted.stages] == [s.patch_size for s in schedule.stages]
