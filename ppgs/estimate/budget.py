"""Schedules that meet a budget of time, energy, or a share of constant patch size's cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ppgs.errors import BadInput
from ppgs.estimate.cost import Estimate
from ppgs.schedule.pacing import Pacing

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[a-z]+)", re.IGNORECASE)
Make = Callable[[int, Pacing], Estimate]


@dataclass(frozen=True)
class Budget:
    """`amount` seconds, watt-hours, or a share of the cost of constant patch size over the epochs asked for."""

    text: str
    kind: Literal["time", "energy", "share"]
    amount: float


def parse_budget(text: str) -> Budget:
    """Parse `12h`, `90min`, `2d`, `50%`, `2kWh` or `800Wh`; raises `BadInput`."""
    match = _PATTERN.fullmatch(text.strip())
    if match and float(match[1]) > 0:
        amount, unit = float(match[1]), match[2].lower()
        if unit == "%":
            return Budget(text, "share", amount / 100)
        if unit in _SECONDS:
            return Budget(text, "time", amount * _SECONDS[unit])
        if unit in ("wh", "kwh"):
            return Budget(text, "energy", amount * (1000 if unit == "kwh" else 1))
    raise BadInput(f"'{text}' is no budget", "--budget", "use a time (12h, 90min), a share (50%) or an energy (2kWh)")


def spent(estimate: Estimate, budget: Budget, epochs: int) -> float:
    """Return this cost in the budget's unit; a share is of `epochs` epochs of constant patch size, in FLOPs if time is
    not known.

    The time of a card that is not calibrated is the middle of its range. Raises `BadInput` where nothing is known.
    """
    if budget.kind == "share":
        relative = estimate.relative.flops if estimate.relative.time is None else estimate.relative.time
        return relative * estimate.schedule.epochs / epochs
    if budget.kind == "time" and estimate.seconds is None and (rough := estimate.rough_seconds) is not None:
        return rough.middle
    value = estimate.seconds if budget.kind == "time" else estimate.energy_wh
    if value is None:
        known = "time" if budget.kind == "time" else "power"
        raise BadInput(
            f"the {known} of this device is not known", "--budget", "measure it once with --calibrate, or give a share"
        )
    return value


def propose(make: Make, epochs: int, pacing: Pacing, least: int, budget: Budget) -> tuple[Estimate, list[str]]:
    """Return the schedule within the budget that is closest to the requested one, and the changes in words.

    Unchanged where it suffices; else with equal pacing (which gives small patches more epochs); else with fewer epochs.
    Raises `BadInput` where even `least` epochs cost more.
    """

    def within(estimate: Estimate) -> bool:
        return spent(estimate, budget, epochs) <= budget.amount

    wanted = make(epochs, pacing)
    if within(wanted):
        return wanted, []
    changes = []
    if pacing != "equal":
        changes.append(f"pacing {pacing} -> equal")
        wanted = make(epochs, "equal")
        if within(wanted):
            return wanted, changes
    best = make(least, "equal")
    if not within(best):
        cost = spent(best, budget, epochs) / budget.amount
        raise BadInput(
            f"the fewest epochs that the schedule can have, {least}, already cost {cost:.1f} times the budget",
            f"--budget {budget.text}",
            "give a larger budget, or fewer --iterations",
        )
    low, high = least, epochs - 1
    while low < high:
        middle = (low + high + 1) // 2
        candidate = make(middle, "equal")
        if within(candidate):
            low, best = middle, candidate
        else:
            high = middle - 1
    return best, [*changes, f"epochs {epochs} -> {best.schedule.epochs}"]
