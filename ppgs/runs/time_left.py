"""Time left of a run: a pure function of its stages and of the times of its epochs so far.

An epoch is predicted as training plus validation plus a rest. Training grows with a stage's work along a line that is
fitted to the stages measured. Validation is always at the plan's patch: its first iterations already show what the
last stage will cost, since a training step takes about three times as long as a forward pass. Recent epochs show how
fast the machine is now, and move the whole prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low
from typing import Any, TypeGuard

# Epochs of a stage, and epochs before now, that are looked at.
RECENT = 9
# Seconds of a training iteration over those of a validation iteration at the same patch and batch.
_STEP_TO_FORWARD = 3.4
# Part of a training iteration at the last stage's patch that does not depend on the patch.
_FIXED = 0.08
# Relative errors, as standard deviations: of the line at a stage, per stage since then, of the two figures above.
_OF_LINE, _OF_AGE, _OF_FORWARD, _OF_FIXED = 0.05, 0.02, 0.25, 0.15
# An epoch counts as much as it takes less or more than the median, up to this factor; beyond it is an accident.
_ACCIDENT = 1.5
# The final validation: seconds to start its processes and to summarise, to write a case, and its relative error.
_VALIDATION_START, _VALIDATION_CASE, _OF_VALIDATION = 6.0, 0.05, 0.3
_PASSES = 4
# Cases that the prediction counts for beside those that are done.
_PRIOR_CASES = 3.0
# Four of five times the truth is within this many standard deviations.
_DEVIATIONS = 1.3


@dataclass(frozen=True)
class StageFacts:
    """Facts about a stage that determine its time.

    `work` is that of one training iteration, in FLOPs or in voxels, the same in all stages. `validations` are the
    validation iterations after one of `interval` epochs, None in logs that do not say.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    epochs: int
    work: float
    validations: int | None = None
    interval: int = 1

    @property
    def kind(self) -> tuple[object, ...]:
        """Everything that the time of an epoch depends on."""
        return self.patch_size, self.batch_size, self.work, self.validations, self.interval

    @property
    def mean_validations(self) -> float:
        """Validation iterations over all epochs of the stage."""
        return (self.validations or 0) * math.ceil(self.epochs / self.interval) / max(self.epochs, 1)


@dataclass(frozen=True)
class EpochTimes:
    """Seconds of one finished epoch; those of validation are 0 where it was not validated."""

    stage: int
    train: float
    validation: float = 0.0
    rest: float = 0.0

    @classmethod
    def of(cls, stage: object, seconds: object, train: object, validation: object) -> EpochTimes | None:
        """Return the times in an event, or None if they are implausible; all is training if the parts are missing."""
        if not isinstance(stage, int) or stage < 0 or not _is_duration(seconds):
            return None
        if not _is_duration(train) or not is_number(validation):
            return cls(stage, seconds)
        return cls(stage, train, validation, max(seconds - train - validation, 0.0))

    @property
    def seconds(self) -> float:
        return self.train + self.validation + self.rest

    def scaled(self, factor: float) -> EpochTimes:
        """Return the times of `factor` times as many training iterations."""
        return EpochTimes(self.stage, self.train * factor, self.validation, self.rest)


@dataclass(frozen=True)
class Span:
    """Expected seconds, and the range they are in for four of five cases.

    `uncalibrated`: a range from a card's published figures, which nothing measured supports.
    """

    low: float
    middle: float
    high: float
    uncalibrated: bool = False

    def __add__(self, other: Span) -> Span:
        either = self.uncalibrated or other.uncalibrated
        return Span(self.low + other.low, self.middle + other.middle, self.high + other.high, either)

    def times(self, factor: float) -> Span:
        return Span(self.low * factor, self.middle * factor, self.high * factor, self.uncalibrated)

    @classmethod
    def around(cls, middle: float, error: float) -> Span:
        """Return a span around the expected seconds; `error` is a relative standard deviation."""
        factor = 1 + _DEVIATIONS * error
        return cls(middle / factor, middle, middle * factor)


class Forecast:
    """Prediction of future epochs in seconds from finished ones, oldest first. Raises ValueError without any.

    Only the last `RECENT` epochs of every stage in `measured` count.
    """

    def __init__(self, stages: Sequence[StageFacts], iterations: int, measured: Iterable[EpochTimes]) -> None:
        self._stages = stages
        # Stages that differ in nothing but their epochs are measured together: the first of them represents all.
        self._kind = [next(i for i, other in enumerate(stages) if other.kind == one.kind) for one in stages]
        self._epochs = [replace(t, stage=self._kind[t.stage]) for t in measured if t.stage < len(stages)]
        if not self._epochs:
            raise ValueError("no epoch was measured")
        self._of_stage: dict[int, list[EpochTimes]] = {}
        for times in self._epochs:
            self._of_stage.setdefault(times.stage, []).append(times)
        recent = self._epochs[-RECENT:]
        # Logs that do not say how much is validated: it is then part of the training.
        self._apart = all(stage.validations is not None for stage in stages)
        self.validation_iteration = self._per_validation(recent) if self._apart else None
        self._rest = _mean([times.rest for times in recent])
        self._largest = max(stage.work for stage in stages)
        self._fit(iterations)
        # How fast the machine is now, against the line.
        ratios = [self._train(times) / self._line(stages[times.stage].work) for times in recent]
        self._level = _mean(ratios)
        self._scatter = _scatter(ratios)
        # An epoch of every stage: measured where it was, else predicted.
        self.stage_seconds = [
            self._measured_seconds(stage, self._of_stage[kind][-RECENT:])
            if kind in self._of_stage
            else self.epoch_seconds(stage)
            for kind, stage in zip(self._kind, stages, strict=True)
        ]

    def _measured_seconds(self, stage: StageFacts, epochs: Sequence[EpochTimes]) -> float:
        if stage.interval == 1:
            return _mean([times.seconds for times in epochs])
        validation = (self.validation_iteration or 0.0) * stage.mean_validations
        return _mean([times.train for times in epochs]) + validation + _mean([times.rest for times in epochs])

    def _train(self, times: EpochTimes) -> float:
        return times.train if self._apart else times.train + times.validation

    def _per_validation(self, recent: Sequence[EpochTimes]) -> float | None:
        """Return the seconds of one validation iteration; epochs that took many count most."""
        pairs = [(times.validation, self._stages[times.stage].validations or 0) for times in recent]
        found = sorted((seconds / count, count) for seconds, count in pairs if count and _is_duration(seconds))
        half = sum(count for _, count in found) / 2
        for each, count in found:
            half -= count
            if half <= 0:
                return each
        return None

    def _fit(self, iterations: int) -> None:
        """Fit the line through the stages' seconds: least squares of relative errors, with prior knowledge."""
        latest = self._epochs[-1].stage
        shares = [stage.work / self._largest for stage in self._stages]
        rows: list[tuple[float, float, float]] = []  # share, seconds, relative error
        for index, epochs in self._of_stage.items():
            values = [self._train(times) for times in epochs[-RECENT:]]
            error = math.hypot(_OF_LINE, _OF_AGE * abs(latest - index), _scatter(values) / math.sqrt(len(values)))
            rows.append((shares[index], _mean(values), error))
        if self.validation_iteration is not None:
            rows.append((shares[-1], _STEP_TO_FORWARD * self.validation_iteration * iterations, _OF_FORWARD))
        share, seconds, _ = rows[-1]
        # The fixed part of the largest stage is so large a part of it: fixed = _FIXED * (fixed + slope).
        weight = (_FIXED + (1 - _FIXED) * share) / (seconds * _OF_FIXED)
        prior = weight * (1 - _FIXED), -weight * _FIXED, 0.0
        errors = [error for *_, error in rows]
        for _ in range(_PASSES):
            equations = [(1 / (y * e), x / (y * e), 1 / e) for (x, y, _), e in zip(rows, errors, strict=True)]
            self._solve([*equations, prior])
            # A stage that is far off had an accident, or another machine: it says less than the others.
            errors = [max(e, abs((self._fixed + self._slope * x) / y - 1)) for x, y, e in rows]

    def _solve(self, equations: Sequence[tuple[float, float, float]]) -> None:
        """Set the line to the least squares of x * fixed + y * slope = z, neither of them negative."""
        aa, ab, bb = (sum(e[i] * e[j] for e in equations) for i, j in ((0, 0), (0, 1), (1, 1)))
        ay, by = (sum(e[i] * e[2] for e in equations) for i in (0, 1))
        # By the part of y that is not x (Gram-Schmidt): differences of the sums would be rounding alone where durations
        # differ by many orders of magnitude.
        own = [(y - x * ab / aa, z) for x, y, z in equations]
        determinant = aa * max(sum(y * y for y, _ in own), 1e-12 * bb)
        self._slope = aa * sum(y * z for y, z in own) / determinant
        self._fixed = (ay - ab * self._slope) / aa
        if self._fixed < 0:
            self._fixed, self._slope = 0.0, by / bb
        elif self._slope < 0:
            self._fixed, self._slope = ay / aa, 0.0
        self._variances = bb / determinant, -ab / determinant, aa / determinant

    def _line(self, work: float) -> float:
        return self._fixed + self._slope * work / self._largest

    def _error(self, work: float) -> float:
        """Return the relative error of the line there."""
        share = work / self._largest
        variance = self._variances[0] + 2 * share * self._variances[1] + share * share * self._variances[2]
        return math.sqrt(max(variance, 0.0)) / self._line(work)

    def _parts(self, stage: StageFacts, index: int | None = None) -> tuple[float, float, float]:
        """Return seconds of training, validation and the rest of an epoch; a stage with an index may be measured."""
        train = self._level * self._line(stage.work)
        # The prediction counts as one more epoch of the stage, so that its first ones change little.
        known = self._of_stage.get(-1 if index is None else self._kind[index], [])[-RECENT:]
        train = _mean([train, *map(self._train, known)])
        validation = (self.validation_iteration or 0.0) * stage.mean_validations
        return train, validation, self._rest

    def epoch_seconds(self, stage: StageFacts) -> float:
        """Return the seconds of an epoch of any stage of the same network and iterations, trained here or not."""
        return sum(self._parts(stage))

    @property
    def coming_seconds(self) -> list[float]:
        """The seconds of an epoch of every stage if it were trained next; `training` adds these up."""
        return [sum(self._parts(stage, index)) for index, stage in enumerate(self._stages)]

    def training(self, epoch: int = 0, train_done: float = 0.0, validation_done: float = 0.0) -> Span:
        """Return the time of training from an epoch on, of which these parts are done."""
        low = middle = high = 0.0
        first = 0
        for index, stage in enumerate(self._stages):
            train, validation, rest = self._parts(stage, index)
            begun = min(max(epoch - first, 0), stage.epochs)
            left = (stage.epochs - begun) * (train + validation + rest)
            if 0 <= epoch - first < stage.epochs:
                left = max(left - train * train_done - validation * validation_done, 0.0)
            known = min(len(self._of_stage.get(self._kind[index], ())), RECENT)
            error = math.hypot(self._error(stage.work), 0.02) / math.sqrt(1 + known)
            span = Span.around(left, error + self._scatter / 2)
            low, middle, high = low + span.low, middle + span.middle, high + span.high
            first += stage.epochs
        return Span(low, middle, high)

    def final_validation(self, work: Mapping[str, Any] | None, processes: int = 1) -> Span | None:
        """Return the time of the final validation of all cases, None if its work is not known.

        `work`: cases, windows of all of them together, passes through the network of each, and seconds of a pass.
        """
        seconds = validation_seconds(work, self.validation_iteration, self._stages[-1].batch_size, processes)
        return None if seconds is None else Span.around(seconds, _OF_VALIDATION)


def validation_seconds(
    work: Mapping[str, Any] | None, each: float | None, batch: int, processes: int = 1
) -> float | None:
    """Return seconds of the final validation, None where its work (see `Forecast.final_validation`) is not known.

    A window is one sample, which takes longer alone than in a batch. Where no pass of one was measured, a validation
    iteration of `batch` samples takes `each`.
    """
    if work is None:
        return None
    numbers = [work.get(name) for name in ("cases", "windows", "passes")]
    one = work.get("pass_seconds")
    if not _is_duration(one):
        one = None if each is None else each / max(batch / processes, 1.0)
    if one is None or not all(is_number(number) for number in numbers):
        return None
    cases, windows, passes = numbers
    seconds: float = (windows * passes * one + _VALIDATION_CASE * cases) / processes  # type: ignore[operator]
    start = work.get("start_seconds")
    return (start if is_number(start) else _VALIDATION_START) + seconds


def validation_left(expected: Span | None, elapsed: float, done: int, total: int) -> Span | None:
    """Return the rest of the final validation after `elapsed` seconds, given its expected total."""
    if not 0 <= done <= total or total <= 0 or (expected is None and not done):
        return None
    known, elapsed = (_PRIOR_CASES, max(elapsed, 0.0)) if expected is not None else (0.0, max(elapsed, 0.0))
    whole = 0.0 if expected is None else expected.middle
    if not done:
        # Longer than expected: as much again as a case should take.
        return Span.around(max(whole - elapsed, whole / total), _OF_VALIDATION)
    each = (elapsed + known * whole / total) / (done + known)
    return Span.around(each * (total - done), _OF_VALIDATION / math.sqrt(1 + done))


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


def _is_duration(value: object) -> TypeGuard[float]:
    return is_number(value) and value >= 1e-6


def _mean(values: Sequence[float]) -> float:
    """Return the mean, with outliers capped at `_ACCIDENT` times the median."""
    middle = median_low(values)
    return sum(min(max(value, middle / _ACCIDENT), middle * _ACCIDENT) for value in values) / len(values)


def _scatter(values: Sequence[float]) -> float:
    """Return the relative standard deviation, from the median of the deviations from the median."""
    middle = median(values)
    return 1.48 * median(abs(value - middle) for value in values) / middle if middle > 0 else 0.0
