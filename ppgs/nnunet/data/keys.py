"""Keys: everything that a batch depends on besides the data, in the order of the training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

from ppgs import upstream
from ppgs.schedule import Schedule
from ppgs.schedule.shares import WHOLE, Cut, case_of, shows_foreground

Phase = Literal["train", "validation"]
_PHASES: dict[Phase, int] = {"train": 0, "validation": 1}
# At most this many batches, of this many voxels, are made together.
_GROUP, _GROUP_VOXELS = 32, 2**21


@dataclass(frozen=True)
class Oversampling:
    """A trainer's own choice of the samples that must show foreground, in place of the schedule's.

    `random` draws for every sample, as nnU-Net's `_probabilistic_oversampling`; else the last ones of a batch do.
    """

    share: float
    random: bool


@dataclass(frozen=True)
class BatchKey:
    """Everything that a batch depends on besides the data; patch size in voxels, axis order (z, y, x) or (y, x).

    `held` names the slots that this process trains on where several share the batch; None: all of them.
    """

    phase: Phase
    seed: int
    epoch: int
    iteration: int
    patch_size: tuple[int, ...]
    batch_size: int
    cases: int
    foreground_share: float
    held: tuple[int, ...] | None = None
    random_foreground: bool = False

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots that this rank makes."""
        return tuple(range(self.batch_size)) if self.held is None else self.held

    def cases_of(self, identifiers: list[str]) -> list[str]:
        """Draw the batch's cases among all of them; the same on all ranks that share the batch."""
        chosen = np.random.default_rng(self.seed_of(None)).choice(len(identifiers), self.cases)
        return [identifiers[c] for c in chosen]

    def seed_of(self, slot: int | None) -> np.random.SeedSequence:
        """Return the seed of one sample, or (None) of the choice of cases."""
        return np.random.SeedSequence(
            [self.seed, _PHASES[self.phase], self.epoch, self.iteration, 0 if slot is None else slot + 1]
        )

    def case_of(self, slot: int) -> int:
        """Return which of the batch's cases a slot is cropped from: equal runs of slots per case."""
        return case_of(slot, self.cases, self.batch_size)

    def is_foreground(self, slot: int) -> bool:
        """Return whether the crop must show foreground by nnU-Net's rule (`_oversample_last_XX_percent`), per case."""
        if self.random_foreground:
            # A child of the sample's seed, from which its crop is drawn.
            (child,) = self.seed_of(slot).spawn(1)
            return bool(np.random.default_rng(child).random() < self.foreground_share)
        return shows_foreground(self.case_of(slot), self.cases, self.foreground_share)


class KeySampler(Sampler[BatchKey | None]):
    """Sampler of the keys of a whole training from a given epoch and iteration on, validation included.

    `schedule` may be replaced by one that plans later stages differently. Prefetching must not run into stages that
    are not settled: after the first epoch of the next one, which every plan has, None says that no key is known yet.
    """

    def __init__(
        self,
        schedule: Schedule,
        seed: int,
        *,
        epoch: int = 0,
        iteration: int = 0,
        cut: Cut = WHOLE,
        oversampling: Oversampling | None = None,
    ) -> None:
        self.schedule, self.seed = schedule, seed
        self.epoch, self.iteration, self.cut = epoch, iteration, cut
        self.oversampling = oversampling

    def __iter__(self) -> Iterator[BatchKey | None]:
        epoch = self.epoch
        while epoch < self.schedule.epochs:
            while epoch > self.schedule.decision_epoch:
                yield None
            for iteration in range(self.iteration if epoch == self.epoch else 0, self.schedule.iterations_per_epoch):
                yield self.training_key(epoch, iteration)
            for iteration in range(self.schedule.validation_iterations_at(epoch)):
                yield self.validation_key(epoch, iteration)
            epoch += 1

    def training_key(self, epoch: int, iteration: int) -> BatchKey:
        stage, own = self.schedule.stage_at(epoch), self.oversampling
        return BatchKey(
            phase="train",
            seed=self.seed,
            epoch=epoch,
            iteration=iteration,
            patch_size=self.schedule.patch_at(self.seed, epoch, iteration),
            batch_size=stage.batch_size,
            cases=stage.cases_per_batch,
            foreground_share=stage.foreground_share if own is None else own.share,
            held=self._held(stage.batch_size, stage.accumulation),
            random_foreground=own is not None and own.random,
        )

    def validation_key(self, epoch: int, iteration: int) -> BatchKey:
        """Return the validation key, always of the final patch and batch size, and of nnU-Net's share of foreground."""
        final, own = self.schedule.stages[-1], self.oversampling
        return BatchKey(
            phase="validation",
            seed=self.seed,
            epoch=epoch,
            iteration=iteration,
            patch_size=final.patch_size,
            batch_size=final.batch_size,
            cases=final.batch_size,
            foreground_share=upstream.FOREGROUND_SHARE if own is None else own.share,
            held=self._held(final.batch_size, 1),
            random_foreground=own is not None and own.random,
        )

    def _held(self, batch: int, parts: int) -> tuple[int, ...] | None:
        return self.cut.slots(batch, parts) if self.cut.ranks > 1 else None


def _kind(key: BatchKey | None) -> tuple[Phase, tuple[int, ...], int] | None:
    return None if key is None else (key.phase, key.patch_size, key.batch_size)


class KeyGroups(Sampler[tuple[BatchKey, ...]]):
    """Sampler of the same keys in the same order, in groups of neighbours with small batches, made together.

    They share the fixed cost of a batch, which dominates in the first stages. A group is empty where no
    key is known yet.
    """

    def __init__(self, keys: KeySampler, *, most: int = _GROUP) -> None:
        self._keys, self._most = keys, most

    def __iter__(self) -> Iterator[tuple[BatchKey, ...]]:
        for kind, alike in groupby(self._keys, _kind):
            if kind is None:
                yield from (() for _ in alike)
                continue
            _, patch, batch = kind
            most = min(self._most, max(1, _GROUP_VOXELS // (batch * math.prod(patch))))
            while group := tuple(key for key in islice(alike, most) if key is not None):
                yield group
