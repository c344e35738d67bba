"""Batches whose loss or gradients are NaN or infinite: they change nothing, and too many stop the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ppgs.errors import NonFiniteLoss

# More consecutive failures than this cannot be blamed on the data.
_MOST_IN_A_ROW = 10


class NonFiniteBatches:
    """Counts such batches if they may be skipped (`skip`), and reports each by `warn`."""

    def __init__(self, *, skip: bool, warn: Callable[[str], object]) -> None:
        self._skip, self._warn = skip, warn
        self._count = self._in_a_row = 0

    def end_row(self) -> None:
        """Reset the count after a batch that was trained on."""
        self._in_a_row = 0

    def leave_out(self, what: str, cases: Sequence[str]) -> NonFiniteLoss | None:
        """Warn and return None if the batch is skipped, else return the error that stops the training."""
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
