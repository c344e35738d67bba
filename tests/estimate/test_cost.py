"""Cost of a schedule, on a made-up network whose costs are known by hand."""

from __future__ import annotations

import json
import math

import pytest

from ppgs.estimate.allocator import MIB
from ppgs.estimate.arrival import Arrivals
from ppgs.estimate.calibration import Calibration
from ppgs.estimate.cost import Costs, as_json
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


@pytest.mark.parametrize("augmented", [True, False])
def test_batches_that_arrive_beside_the_step_take_memory(augmented: bool, facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    alone = costs_with()
    arrivals = Arrivals(alone.tracer.network, facts.patch_size, (36.0, 50.0, 35.0), augmented)
    both = Costs(alone.tracer, facts, alone.machine, arrivals=arrivals)
    large = Stage(patch_size=(40, 56, 40), batch_size=64, epochs=1)
    before, after = alone.memory(large), both.memory(large)
    batch, pool = arrivals.bytes_of(large.patch_size, 64), arrivals.pool(large.patch_size, 64, 64)
    assert batch == pool.batch == 64 * (40 * 56 * 40) * 4 + 64 * 2 * sum(40 * 56 * 40 // 8**n for n in range(3))
    assert after.expected == before.expected - batch + pool.reserved
    # The step before is over when memory is short: its activations make room.
    assert (after.live, after.floor) == (before.live, before.floor)
    assert pool.reserved > (3 if augmented else 1.9) * batch
    if not augmented:
        assert pool.peak == batch
        # Small targets take a segment of 20 MiB.
        assert pool.reserved < 2.1 * batch + 20 * MIB


def test_a_group_is_held_as_long_as_one_of_its_batches(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    alone = costs_with()
    arrivals = Arrivals(alone.tracer.network, facts.patch_size, (36.0, 50.0, 35.0))
    both = Costs(alone.tracer, facts, alone.machine, arrivals=arrivals)
    small = Stage(patch_size=(8, 8, 8), batch_size=9, epochs=1)
    pool = arrivals.pool(small.patch_size, 9, 9)
    assert pool.batch == 32 * arrivals.bytes_of(small.patch_size, 9)
    weights = 8 * alone.tracer.parameters
    assert both.memory(small).live == max(alone.memory(small).live + pool.batch * 31 // 32, weights + pool.peak)
    assert both.memory(small).live <= both.memory(small).floor <= both.memory(small).expected


def test_whole_batches_arrive_whatever_parts_they_are_trained_in(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    alone = costs_with()
    arrivals = Arrivals(alone.tracer.network, facts.patch_size)
    parts = Stage(patch_size=(40, 56, 40), batch_size=8, epochs=1, accumulation=4)
    for gpus, held in ((1, 8), (2, 4)):
        step = Costs(alone.tracer, facts, alone.machine, gpus=gpus).memory(parts)
        both = Costs(alone.tracer, facts, alone.machine, gpus=gpus, arrivals=arrivals).memory(parts)
        pool = arrivals.pool(parts.patch_size, 8, held)
        assert both.expected == step.expected - arrivals.bytes_of(parts.patch_size, 2) + pool.reserved


def test_slices_are_cut_whole_and_turned_in_their_plane(costs_with) -> None:  # type: ignore[no-untyped-def]
    arrivals = Arrivals(costs_with().tracer.network, (8, 128, 128), (20.0, 70.0, 300.0))
    assert arrivals.in_plane
    assert arrivals.box((8, 64, 64)) == (8, 72, 75)
