"""Checks of `train` before a schedule may start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppgs.commands.plan_schedule import PlanRequest, plan_schedule
from ppgs.errors import DoesNotFit
from ppgs.estimate.cost import Costs
from ppgs.estimate.machine import choose_machine
from ppgs.estimate.network import Network
from ppgs.estimate.preflight import check_memory, costs_of
from ppgs.estimate.tracer import Tracer
from ppgs.plans import load_dataset, load_plans
from ppgs.schedule import PlanFacts, Recipe, resolve
from ppgs.tasks import Roots


def test_a_schedule_is_let_through_refused_or_changed(shared: Path) -> None:
    folder = shared / "msd" / "Dataset004_Hippocampus"
    plans, dataset = load_plans(folder / "nnUNetPlans.json"), load_dataset(folder / "dataset.json")
    configuration = plans.configuration("3d_fullres")
    schedule = resolve(Recipe(), PlanFacts.of(plans, configuration))

    def costs(gpu_memory: str) -> Costs:
        return costs_of(plans, configuration, dataset, gpu_memory=gpu_memory)

    same, estimate, changes = check_memory(schedule, costs("8GiB"))
    assert (same, changes) == (schedule, [])
    assert estimate.fits
    with pytest.raises(DoesNotFit):
        check_memory(schedule, costs("1GiB"))
    fitted, estimate, changes = check_memory(schedule, costs("1GiB"), apply_remedies=True)
    assert estimate.fits
    assert changes
    assert [s.patch_size for s in fitted.stages] == [s.patch_size for s in schedule.stages]


def test_batches_that_arrive_beside_the_step_count_on_a_gpu_alone(shared: Path) -> None:
    folder = shared / "msd" / "Dataset004_Hippocampus"
    plans, dataset = load_plans(folder / "nnUNetPlans.json"), load_dataset(folder / "dataset.json")
    configuration = plans.configuration("3d_fullres")
    facts = PlanFacts.of(plans, configuration)
    schedule = resolve(Recipe(), facts)
    tracer = Tracer(Network.of(configuration, dataset))
    step = Costs(tracer, facts, choose_machine("cuda", "80GiB")).estimate(schedule).peak_memory

    def peak(**options: Any) -> int:
        return costs_of(plans, configuration, dataset, **options).estimate(schedule).peak_memory

    assert step == peak(gpu_memory="80GiB", augmented=None)
    assert step < peak(gpu_memory="80GiB", augmented=False) < peak(gpu_memory="80GiB") < 1.1 * step
    assert peak(device="cuda") == peak(gpu_memory="80GiB")
    without = Costs(Tracer(tracer.network, mixed=False), facts, choose_machine("cpu", None)).estimate(schedule)
    assert peak(device="cpu") == without.peak_memory
    planned = plan_schedule(PlanRequest(task="Task04_Hippocampus", gpu_memory="80GiB"), Roots(*[shared] * 3))
    assert planned.estimate.peak_memory == peak(gpu_memory="80GiB")
