"""Cost of a schedule, on a made-up network whose costs are known by hand."""

from __future__ import annotations

import json
import math

import pytest

from ppgs.estimate.calibration import Calibration
from ppgs.estimate.cost import as_json
from ppgs.estimate.memory import Memory, Surroundings, Verdict
from ppgs.estimate.speed import Speed
from ppgs.schedule import MODES, PlanFacts, Recipe, Stage, resolve

from .conftest import BYTES_PER_VOXEL, FLOPS_PER_VOXEL

CALIBRATION = Calibration(
    device="cpu of a test x2", torch="2", speed=Speed(network="?", overhead=0.01, rate=1e9), watts=100.0
)


@pytest.mark.parametrize("mode", list(MODES))
def test_every_mode_is_reckoned(mode, facts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode=mode), facts)
    estimate = costs_with().estimate(schedule, facts.batch_size)
    assert len(estimate.stages) == len(schedule.stages)
    assert estimate.relative.flops == pytest.approx(estimate.relative.voxels, rel=1e-3)
    assert estimate.relative.time is None
    for cost in estimate.stages:
        assert cost.memory.live <= cost.memory.floor <= cost.memory.expected
        assert cost.verdict is Verdict.FITS
    json.dumps(as_json(estimate), allow_nan=False)


def test_figures_of_a_stage(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    stage = Stage(patch_size=(8, 16, 8), batch_size=9, epochs=5)
    costs = costs_with()
    voxels = 9 * math.prod(stage.patch_size)
    assert costs.flops(stage) == FLOPS_PER_VOXEL * voxels
    assert costs.memory(stage).live == 4_000_000 + BYTES_PER_VOXEL * voxels


def test_constant_is_the_measure(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    estimate = costs_with(calibration=CALIBRATION).estimate(resolve(Recipe(mode="constant"), facts))
    assert (estimate.relative.voxels, estimate.relative.flops, estimate.relative.time) == (1.0, 1.0, 1.0)


def test_efficiency_against_constant_is_the_papers_ratio(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    """Mean voxels relative to the final patch: 0.324 over the stages; the remainder of 1000 epochs is the last's."""
    estimate = costs_with().estimate(resolve(Recipe(epochs=15), facts))
    assert estimate.relative.voxels == pytest.approx(0.324, abs=5e-4)
    assert estimate.relative.flops == pytest.approx(estimate.relative.voxels)


def test_a_drawn_patch_costs_the_mean_and_needs_the_largest(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    costs = costs_with()
    stage = Stage(patch_size=(16, 16, 16), batch_size=2, epochs=1, patch_choices=((8, 8, 8), (16, 16, 16)))
    assert costs.flops(stage) == FLOPS_PER_VOXEL * 2 * (512 + 4096) // 2
    assert costs.memory(stage) == costs.memory(Stage(patch_size=(16, 16, 16), batch_size=2, epochs=1))


def test_time_and_energy(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="constant", epochs=10, iterations_per_epoch=20), facts)
    estimate = costs_with(calibration=CALIBRATION).estimate(schedule)
    flops = FLOPS_PER_VOXEL * 9 * math.prod(facts.patch_size)
    step, validation = 0.01 + flops / 1e9, 0.01 + flops / 3 / 1e9
    assert estimate.seconds == pytest.approx(10 * (20 * step + 4 * validation), rel=1e-3)
    assert estimate.energy_wh == pytest.approx(estimate.seconds * 100 / 3600)


def test_accumulation_trades_memory_for_held_gradients(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    costs = costs_with()
    whole = Stage(patch_size=(40, 56, 40), batch_size=9, epochs=1)
    parts = Stage(patch_size=(40, 56, 40), batch_size=9, epochs=1, accumulation=9)
    assert costs.flops(parts) == costs.flops(whole)
    one = Stage(patch_size=(40, 56, 40), batch_size=1, epochs=1)
    assert costs.memory(parts).live == costs.memory(one).live + 4 * 1_000_000


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [(None, Verdict.FITS), (1150, Verdict.FITS), (1149, Verdict.TRY), (800, Verdict.TRY), (799, Verdict.NOT)],
)
def test_verdicts(limit: int | None, verdict: Verdict) -> None:
    assert Memory(live=700, floor=800, expected=1000).verdict(limit, Surroundings(margin=1.15)) is verdict


def test_the_worst_stage_decides(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(), facts)
    last = costs_with().memory(schedule.stages[-1])
    assert costs_with(last.floor - 1).estimate(schedule).verdict is Verdict.NOT
    assert not costs_with(last.floor - 1).estimate(schedule).fits
    assert costs_with(last.floor).estimate(schedule).verdict is Verdict.TRY
    assert costs_with(2 * last.expected).estimate(schedule).verdict is Verdict.FITS
