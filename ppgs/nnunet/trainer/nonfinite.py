"""Batches whose loss or gradients are NaN or infinite: nothing is made of them, and too many stop the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ppgs.errors import NonFiniteLoss

# More consecutive failures than this cannot be blamed on the data.
_MOST_IN_A_ROW = 10


class NonFiniteBatches:
    """Counts them where they may be left out (`skip`), and says of each by `warn`."""

    def __init__(self, *, skip: bool, warn: Callable[[str], object]) -> None:
        self._skip, self._warn = skip, warn
        self._count = self._in_a_row = 0

    def end_row(self) -> None:
        """A batch was trained on."""
        self._in_a_row = 0

    def leave_out(self, what: str, cases: Sequence[str]) -> NonFiniteLoss | None:
        """None for a batch that is left out with a warning, else what the training has to stop with."""
        self._count += 1
        self._in_a_row += 1
        named = f"cases {', '.join(cases)}"
        if not self._skip:
            remedy = "look at these cases; 'ppgs resume --skip-nonfinite' leaves such batches out"
        elif self._in_a_row > _MOST_IN_A_ROW:
            remedy = f"{self._in_a_row} batches in a row: it is not their cases; start a new run with another seed"
        else:
            self._warn(f"a batch was left out ({self._count} since the start): {what}, {named}")
            return None
        return NonFiniteLoss(what, named, remedy)
