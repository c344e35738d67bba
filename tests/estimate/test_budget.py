"""Schedules that meet a budget."""

from __future__ import annotations

import pytest

from ppgs.errors import BadInput
from ppgs.estimate.budget import parse_budget, propose, spent
from ppgs.schedule import PlanFacts, Recipe, resolve

from .test_cost import CALIBRATION


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("12h", "time", 43200),
        ("90min", "time", 5400),
        ("2d", "time", 172800),
        ("50%", "share", 0.5),
        ("2kWh", "energy", 2000),
    ],
)
def test_budgets(text: str, kind: str, amount: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.amount) == (kind, amount)


@pytest.mark.parametrize("text", ["", "12", "h", "0h", "-3h", "12 parsecs", "50 %%", "1e3h"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_budget(text)


def proposal(facts, costs, text, pacing="equal", epochs=100):  # type: ignore[no-untyped-def]
    def make(epochs, pacing):  # type: ignore[no-untyped-def]
        return costs.estimate(resolve(Recipe(epochs=epochs, pacing=pacing, iterations_per_epoch=10), facts))

    return (*propose(make, epochs, pacing, 15, parse_budget(text)), make)


def test_enough_is_left_alone(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    estimate, changes, _ = proposal(facts, costs_with(), "50%")
    assert (estimate.schedule.epochs, changes) == (100, [])


@pytest.mark.parametrize("text", ["20%", "9%"])
def test_epochs_are_cut_to_the_share_and_no_further(text, facts, costs_with) -> None:  # type: ignore[no-untyped-def]
    estimate, changes, make = proposal(facts, costs_with(), text)
    budget = parse_budget(text)
    assert spent(estimate, budget, 100) <= budget.amount
    assert spent(make(estimate.schedule.epochs + 1, "equal"), budget, 100) > budget.amount
    assert "epochs 100" in changes[-1]


def test_pacing_gives_way_before_epochs(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    estimate, changes, _ = proposal(facts, costs_with(), "45%", pacing="volume")
    assert changes == ["pacing volume -> equal"]
    assert estimate.schedule.epochs == 100


@pytest.mark.parametrize("text", ["5min", "10Wh"])
def test_time_and_energy_are_met(text, facts, costs_with) -> None:  # type: ignore[no-untyped-def]
    estimate, _, _ = proposal(facts, costs_with(calibration=CALIBRATION), text)
    budget = parse_budget(text)
    assert 0.5 * budget.amount < spent(estimate, budget, 100) <= budget.amount


def test_time_without_calibration_is_refused(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match="not known"):
        proposal(facts, costs_with(), "1h")


def test_less_than_an_epoch_a_stage_is_refused(facts: PlanFacts, costs_with) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match="times the budget"):
        proposal(facts, costs_with(), "1%")
