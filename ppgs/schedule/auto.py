"""Mode `auto`: the first patch of the curriculum, chosen by the length of the training.

The measure is the work of the training in iterations at the final patch. Up to `_SHORT` of them the curriculum starts
at a tenth of the final volume, from `_LONG` on at the smallest patch. In between the first patch's share of the final
volume falls from a tenth to `_SMALLEST`, by equal factors for equal factors of the work.

Measured on Hippocampus (fold 0, batch 2; `benchmarks/results/dice.md`, `curriculum.md`): the whole curriculum is behind
constant patch size at 390, level at 780, and ahead at 1170 and 1560; from a tenth on it is ahead at 400 (two seeds).
ACDC in 2D confirmed the short end: after 200 iterations constant patch size has learned nothing, and this rule has;
after 400 its Dice is 0.81 against 0.23 (one seed). So did Hippocampus in 2D (five seeds): 0.40, 0.58 and 0.75 against
0.00, 0.23 and 0.62 after 100, 200 and 400. Between the limits, at 800, it is ahead by 0.006 there after equal work, and
behind by 0.002 in equal time. Nothing longer was measured.

The learning rate always decays over the work done: at the one budget where that was tried it is better by 0.008.
"""

from __future__ import annotations

import math

_SHORT, _LONG = 400.0, 1100.0
_TENTH, _SMALLEST = 0.1, 0.005


def first_share(iterations: float) -> float:
    """Return the smallest share of the final volume that the first patch should have; 0 if any will do."""
    if iterations >= _LONG:
        return 0.0
    way = math.log(max(iterations, _SHORT) / _SHORT) / math.log(_LONG / _SHORT)
    return float(_TENTH * (_SMALLEST / _TENTH) ** way)
