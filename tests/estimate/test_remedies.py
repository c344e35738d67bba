"""Remedies for stages that do not fit."""

from __future__ import annotations

import pytest

from ppgs.errors import BadInput, ExitCode
from ppgs.estimate.memory import Verdict
from ppgs.estimate.remedies import fill, fit, refusal
from ppgs.schedule import PlanFacts, Recipe, resolve

MIB = 1 << 20


def test_a_schedule_that_fits_is_left_alone(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(), facts)
    assert fit(schedule, costs_with(4096 * MIB)) == (schedule, [])


def test_batches_beyond_the_plans_shrink_first(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="performance", batch_size=18), facts)
    costs = costs_with(1100 * MIB)
    fitted, changes = fit(schedule, costs)
    assert costs.estimate(fitted).verdict is Verdict.FITS
    for before, after in zip(schedule.stages, fitted.stages, strict=True):
        assert facts.batch_size <= after.batch_size <= before.batch_size
        assert after.accumulation == 1
        assert after.cases is None or after.cases <= after.batch_size
    assert len(changes) == sum(a != b for a, b in zip(schedule.stages, fitted.stages, strict=True)) > 0


def test_then_gradients_are_accumulated_where_that_is_exact(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="constant"), facts)
    costs = costs_with(400 * MIB)
    fitted, changes = fit(schedule, costs)
    stage = fitted.stages[0]
    assert (stage.batch_size, stage.accumulation, stage.checkpointing) == (9, 3, False)
    assert costs.estimate(fitted).fits
    assert "accumulation over 3 parts" in changes[0]


def test_with_batch_dice_accumulation_is_not_offered(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="constant"), facts)
    fitted, _ = fit(schedule, costs_with(500 * MIB, batch_dice=True))
    stage = fitted.stages[0]
    assert (stage.batch_size, stage.accumulation, stage.checkpointing) == (9, 1, True)
    error = refusal(costs_with(500 * MIB, batch_dice=True).estimate(schedule), costs_with(500 * MIB, batch_dice=True))
    assert not any("accumulation" in p.remedy for p in error.problems)


def test_at_last_the_batch_falls_below_the_plans(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="constant"), facts)
    fitted, changes = fit(schedule, costs_with(120 * MIB, batch_dice=True))
    assert fitted.stages[0].batch_size == 1
    assert "other training" in changes[0]


def test_what_nothing_helps_stays_and_is_refused(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="constant"), facts)
    costs = costs_with(8 * MIB)
    fitted, changes = fit(schedule, costs)
    assert fitted == schedule
    assert changes == []
    error = refusal(costs.estimate(fitted), costs)
    assert error.exit_code is ExitCode.DOES_NOT_FIT


def test_the_refusal_names_stages_amounts_and_remedies_in_order(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(epochs=15), facts)
    limit = costs_with().memory(schedule.stages[-2]).floor
    costs = costs_with(limit)
    error = refusal(costs.estimate(schedule), costs)
    assert "1 of 15 stages" in str(error)
    assert "stage 15" in error.problems[0].what
    assert "more than there is" in error.problems[0].what
    remedies = error.problems[-1].remedy
    order = [remedies.index(w) for w in ("batch 1", "accumulation", "checkpointing", "--fit", "smaller plan")]
    assert order == sorted(order)


def test_fill_uses_the_card_and_still_fits(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    schedule = resolve(Recipe(mode="performance"), facts)
    costs = costs_with(8192 * MIB)
    filled, changes = fill(schedule, costs)
    assert len(changes) == len(schedule.stages)
    for before, after in zip(schedule.stages, filled.stages, strict=True):
        assert after.batch_size > before.batch_size
        assert costs.verdict(after) is Verdict.FITS
        more = after.model_copy(update={"batch_size": after.batch_size + 1 + after.batch_size // 50})
        assert costs.verdict(more) is not Verdict.FITS


@pytest.mark.parametrize(("mode", "limit"), [("performance", None), ("efficiency", 8192 * MIB)])
def test_fill_needs_a_limit_and_a_mode_whose_batch_grows(mode, limit, facts, costs_with) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput):
        fill(resolve(Recipe(mode=mode), facts), costs_with(limit))
