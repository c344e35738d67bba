"""Distribution of a batch's samples over several processes. Arithmetic only.

The batch is the same for any number of ranks, since a sample is a function of its key; ranks only cut it up.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Samples of a rank that pass through the network together: `slots` of the rank's samples.

    `weight` is what the piece's loss counts in the whole batch's, where losses of all pieces of all ranks are added up;
    `whole` is the number of samples of all ranks that the loss is over.
    """

    slots: slice
    weight: float
    whole: int

    @property
    def count(self) -> int:
        return int(self.slots.stop - self.slots.start)


@dataclass(frozen=True)
class Cut:
    """Cut of a batch for one of `ranks` processes.

    Ranks get equal runs of slots, the first ones a sample more where the batch does not divide, the last ones none
    where it is smaller than the number of ranks. A loss that is a mean over samples is taken rank by rank, weighted by
    samples. Where it is not (`together`: batch Dice, ignore label), every part of an accumulated batch is cut by
    itself, and the ranks take its loss together: then those without a sample have a piece too, of none.
    """

    rank: int = 0
    ranks: int = 1
    together: bool = False

    def slots(self, batch: int, parts: int) -> tuple[int, ...]:
        """Return this rank's slots of a batch, in the order in which `pieces` counts them."""
        if not self.together:
            return tuple(self._share(batch))
        part = batch // parts
        return tuple(number * part + slot for number in range(parts) for slot in self._share(part))

    def pieces(self, batch: int, parts: int) -> list[Piece]:
        """Return the pieces that the rank processes in turn; none is larger than one of `parts` equal parts."""
        part = batch // parts
        if self.together:
            held = len(self._share(part))
            return [Piece(slice(n * held, (n + 1) * held), 1 / parts, part) for n in range(parts)]
        held = len(self._share(batch))
        ends = [min(first + part, held) for first in range(0, held, part)]
        return [Piece(slice(n * part, end), (end - n * part) / batch, end - n * part) for n, end in enumerate(ends)]

    def largest(self, batch: int, parts: int) -> int:
        """Return the samples of any rank's largest piece, which determine the memory."""
        part = batch // parts
        return -(-part // self.ranks) if self.together else min(part, -(-batch // self.ranks))

    def validation_parts(self, accumulation: int) -> int:
        """Return the number of parts of a validation batch: the last stage's on one rank, else one."""
        return accumulation if self.ranks == 1 else 1

    def _share(self, count: int) -> range:
        each, more = divmod(count, self.ranks)
        first = self.rank * each + min(self.rank, more)
        return range(first, first + each + (self.rank < more))


WHOLE = Cut()


def case_of(slot: int, cases: int, batch: int) -> int:
    """Return which of a batch's cases a slot is cropped from: equal runs of slots for each case."""
    return slot * cases // batch


def shows_foreground(case: int, cases: int, share: float) -> bool:
    """Return whether a case's crops must show foreground: those of the last cases, as in nnU-Net."""
    return not case < round(cases * (1 - share))
