"""Preview of a training before it starts: stages and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppgs.commands.plan_schedule import PlanRequest, Result, plan_schedule
from ppgs.commands.train.sweep import Planned
from ppgs.errors import BadInput, PlansError, PpgsError
from ppgs.runs.time_left import Span
from ppgs.schedule import Recipe, parse
from ppgs.tasks import Roots

# What no machine trains in an hour, as far as is known before the plans are: a tenth of a second an iteration is fast.
_MANY_ITERATIONS = 36_000
_LONG_SECONDS = 3600.0


@dataclass(frozen=True)
class Preview:
    """Cost of one of several trainings that differ only in their fold; None if the task has no plans yet."""

    trainings: tuple[Planned, ...]
    iterations: int
    cost: Result | None

    @property
    def seconds(self) -> float | None:
        """The estimated seconds of all trainings in sequence; None if unknown."""
        seconds = self.cost.estimate.seconds if self.cost is not None else None
        return None if seconds is None else seconds * len(self.trainings)

    @property
    def uncalibrated(self) -> Span | None:
        """The same as an uncalibrated range, if only that is known."""
        rough = self.cost.estimate.rough_seconds if self.cost is not None else None
        return None if rough is None else rough.times(len(self.trainings))


def iterations_of(one: Planned) -> int:
    """Return the iterations of all epochs that were requested."""
    request = one.manifest.request
    content = parse(request.schedule)
    return (request.epochs or content.epochs) * (request.iterations or content.iterations_per_epoch)


def take_long(previews: Sequence[Preview]) -> bool:
    """Return whether all trainings together take more than an hour, or an unknown time."""
    rough = [one.uncalibrated for one in previews]
    known = sum(one.seconds for one in previews if one.seconds is not None)
    known += sum(one.high for one in rough if one is not None)
    unknown = sum(one.iterations for one in previews if one.seconds is None and one.uncalibrated is None)
    return known > _LONG_SECONDS or unknown > _MANY_ITERATIONS


def preview(planned: Sequence[Planned], roots: Roots) -> list[Preview]:
    """Estimate the cost of new trainings, in order. Takes seconds for a network that was not traced before."""
    alike: dict[tuple[str, ...], list[Planned]] = {}
    for one in planned:
        if one.standing() == "new":
            manifest = one.manifest
            key = (manifest.dataset, manifest.plans, manifest.configuration, manifest.trainer)
            alike.setdefault(key, []).append(one)
    return [_preview(tuple(group), roots) for group in alike.values()]


def _preview(group: tuple[Planned, ...], roots: Roots) -> Preview:
    asked = group[0].asked
    cost: Result | None
    try:
        # The number of epochs may be the trainer's own, which the resolved recipe says.
        content = parse(group[0].manifest.request.schedule)
        own = content.epochs if isinstance(content, Recipe) else None
        shared = asked.shared() | {"epochs": asked.epochs or own}
        cost = plan_schedule(PlanRequest(**shared, schedule=asked.schedule), roots)
    except PpgsError as error:
        # Wrong input is reported now; a cost that cannot be estimated prevents no training.
        if isinstance(error, BadInput) and not isinstance(error, PlansError):
            raise
        cost = None
    return Preview(group, sum(map(iterations_of, group)), cost)
