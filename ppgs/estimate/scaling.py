"""From two traces to every stage: how each allocation of a training step grows with the patch and the batch.

Every storage of a convolutional network's step is a monomial: constant (parameters and what belongs to them),
proportional to the batch (statistics of a sample), or to batch x voxels (feature maps). Two traces with unlike batch
and patch tell which of the three each one is, exactly; the whole sequence of events then follows for any other patch
and batch, and with it live bytes, the allocator's behaviour and the FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["+", "-", "w"]
Patch = tuple[int, ...]
Event = tuple[Kind, int]
# A quantity is proportional to one of: 1, batch, batch x voxels.
_CONSTANT, _BATCH, _VOXELS = 0, 1, 2


class NotLinear(Exception):
    """The two traces do not follow the law: every stage has to be traced separately."""


class Recording(BaseModel):
    """The record of one traced step (two iterations, so that momentum exists): allocations, releases, operations.

    `events`: `+` allocates that many bytes, `-` releases the storage of that number (in order of allocation), `w` is a
    convolution whose operands and results hold that many bytes. `flops` are those of one iteration, one entry a counted
    operation (a multiply-add is two).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    patch: Patch
    batch: int
    events: tuple[Event, ...]
    flops: tuple[int, ...]

    @property
    def volume(self) -> int:
        """Voxels of the whole batch."""
        return self.batch * math.prod(self.patch)

    @property
    def total_flops(self) -> int:
        return sum(self.flops)


class Law(BaseModel):
    """The law of one network and one way of stepping (precision, checkpointing, or a pass without gradients)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Kind, ...]
    values: tuple[tuple[int, int, int], ...]
    flops: tuple[Fraction, Fraction, Fraction]

    def events(self, patch: Sequence[int], batch: int) -> list[Event]:
        """Return the events of a step at this patch (voxels, z y x) and batch; sizes in bytes."""
        factor = (1, batch, batch * math.prod(patch))
        fixed, varying = self._template
        events = fixed.copy()
        for place, kind, which, numerator, denominator in varying:
            events[place] = (kind, -(-numerator * factor[which] // denominator))
        return events

    @cached_property
    def _template(self) -> tuple[list[Event], list[tuple[int, Kind, int, int, int]]]:
        """The events that depend on neither patch nor batch, and how to compute the others by position."""
        # values are (kind, numerator, denominator), or the number of a storage for a release.
        pairs = list(zip(self.kinds, self.values, strict=True))
        fixed: list[Event] = [
            (kind, number if kind == "-" else -(-number // denominator)) for kind, (_, number, denominator) in pairs
        ]
        varying: list[tuple[int, Kind, int, int, int]] = [
            (place, kind, *value)
            for place, (kind, value) in enumerate(pairs)
            if kind != "-" and value[0] != _CONSTANT and value[1]
        ]
        return fixed, varying

    def flops_at(self, patch: Sequence[int], batch: int) -> int:
        """Return the floating-point operations of one training iteration, as `FlopCounterMode` counts them."""
        return _evaluate(self.flops, patch, batch)


def _evaluate(terms: tuple[Fraction, Fraction, Fraction], patch: Sequence[int], batch: int) -> int:
    constant, per_sample, per_voxel = terms
    return round(constant + per_sample * batch + per_voxel * batch * math.prod(patch))


def fit(first: Recording, second: Recording) -> Law:
    """Fit the law of both recordings; raises `NotLinear` if there is none.

    Their batches and their volumes must differ by different factors, so that the three kinds can be separated; or both
    have a batch of one, which PyTorch treats differently here and there, and the law is one for that batch alone.
    """
    batches = Fraction(second.batch, first.batch)
    volumes = Fraction(second.volume, first.volume)
    single = first.batch == second.batch == 1
    if volumes == 1 or (not single and len({Fraction(1), batches, volumes}) < 3):
        raise ValueError("the two traces must differ in batch and volume, by different factors")
    if [k for k, _ in first.events] != [k for k, _ in second.events] or len(first.flops) != len(second.flops):
        raise NotLinear("the two traces took different operations")
    ratios = {batches: _BATCH, volumes: _VOXELS, Fraction(1): _CONSTANT}
    bases = (1, first.batch, first.volume)

    def term(a: int, b: int) -> tuple[int, Fraction]:
        if a == b:
            return _CONSTANT, Fraction(a)
        kind = ratios.get(Fraction(b, a)) if a else None
        if kind is None:
            raise NotLinear(f"a quantity grows from {a} to {b}, neither with the batch nor with its voxels")
        return kind, Fraction(a, bases[kind])

    values: list[tuple[int, int, int]] = []
    for (kind, a), (_, b) in zip(first.events, second.events, strict=True):
        if kind == "-":
            if a != b:
                raise NotLinear("the two traces release in different order")
            values.append((_CONSTANT, a, 1))
        elif kind == "w":
            values.append(_mixed(a, b, first, second))
        else:
            which, coefficient = term(a, b)
            values.append((which, coefficient.numerator, coefficient.denominator))
    return Law(
        kinds=tuple(k for k, _ in first.events),
        values=tuple(values),
        flops=_sum(term(a, b) for a, b in zip(first.flops, second.flops, strict=True)),
    )


def _sum(terms: Iterable[tuple[int, Fraction]]) -> tuple[Fraction, Fraction, Fraction]:
    sums = [Fraction(0)] * 3
    for kind, coefficient in terms:
        sums[kind] += coefficient
    return sums[0], sums[1], sums[2]


def _mixed(a: int, b: int, first: Recording, second: Recording) -> tuple[int, int, int]:
    """Return the size of a convolution's feature maps, proportional to voxels; weights need no workspace."""
    slope = max(Fraction(b - a, second.volume - first.volume), Fraction(0))
    return _VOXELS, slope.numerator, slope.denominator


def constant(recording: Recording) -> Law:
    """Return the law of a single patch and batch size, for networks that do not follow the linear one."""
    return Law(
        kinds=tuple(k for k, _ in recording.events),
        values=tuple((_CONSTANT, value, 1) for _, value in recording.events),
        flops=(Fraction(recording.total_flops), Fraction(0), Fraction(0)),
    )


def peak(events: Iterable[Event]) -> int:
    """Return the peak of live bytes over these events."""
    sizes: list[int] = []
    live = highest = 0
    for kind, value in events:
        if kind == "+":
            sizes.append(value)
            live += value
            highest = max(highest, live)
        elif kind == "-":
            live -= sizes[value]
    return highest
