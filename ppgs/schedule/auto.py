"""Mode `auto`: the first patch of the curriculum, chosen by the length of the training.

The measure is the work of the training in iterations at the final patch. Measured so far, in equal time
(`benchmarks/results/dice.md`: Hippocampus, fold 0, batch 2, two cores): a full curriculum is behind constant patch size
at 390 of them, level at 780, and ahead at 1170 and 1560. So up to `_CONSTANT` there is no curriculum, and from `_FULL`
on all of it. In between the first patch's share of the final volume falls from 1 to `_SMALLEST`, by equal factors for
equal factors of the work: an interpolation that no measurement supports.

The limits do not hold for every dataset: on the demo the full curriculum is far ahead at 100 iterations already
(`benchmarks/results/curriculum.md`).

The learning rate always decays over the work done: at the one budget where that was tried it is better by 0.008.
"""

from __future__ import annotations

import math

_CONSTANT, _FULL = 400.0, 1100.0
_SMALLEST = 0.005


def first_share(iterations: float) -> float:
    """Return the smallest share of the final volume that the first patch should have; 0 if any will do."""
    if iterations <= _CONSTANT:
        return 1.0
    if iterations >= _FULL:
        return 0.0
    return float(_SMALLEST ** (math.log(iterations / _CONSTANT) / math.log(_FULL / _CONSTANT)))
