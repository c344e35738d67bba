"""Mode `auto`: the first patch of the curriculum, chosen by the length of the training.

The measure is the work of the training in iterations at the final patch. Up to `_SHORT` of them the curriculum starts
at a tenth of the final volume, from `_LONG` on at the smallest patch. In between the first patch's share of the final
volume falls from a tenth to `_SMALLEST`, by equal factors for equal factors of the work.

Measured at equal work (fold 0; `benchmarks/results/curriculum.md`): on Hippocampus in 2D (five seeds) a tenth is far
ahead of constant patch size after 100, 200 and 400 iterations. After 800 it is ahead of it by 0.007 in equal time, and
by 0.009 of the whole curriculum; after 1200 all three are level (three seeds). In 3D a tenth is ahead of constant patch
size after 100, 200 and 400, and after 800 by 0.012 (five seeds); the whole curriculum is behind after 390, level
after 780, and ahead after 1170 and 1560 (`dice.md`). Both limits come from Hippocampus. ACDC in 2D (100 to 800) and
the demo (50 to 400) confirm that a tenth is ahead of constant patch size, as do FetalSB in 3D (50 with four seeds, 100
with one) and DrosoVNC in 2D (50 with three, 100 with five, 200 and 400 with one). With 40 iterations at a patch of
1024x1024 (DrosoVNC) it is behind by 0.007 with one seed and ahead by 0.017 with another. At 800 ACDC puts a tenth and
the whole curriculum level (two seeds): it neither confirms nor contradicts the first limit.

The learning rate always decays over the work done: at the one budget where that was tried it is better by 0.008.
"""

from __future__ import annotations

import math

_SHORT, _LONG = 800.0, 1200.0
_TENTH, _SMALLEST = 0.1, 0.005


def first_share(iterations: float) -> float:
    """Return the smallest share of the final volume that the first patch should have; 0 if any will do."""
    if iterations >= _LONG:
        return 0.0
    way = math.log(max(iterations, _SHORT) / _SHORT) / math.log(_LONG / _SHORT)
    return float(_TENTH * (_SMALLEST / _TENTH) ** way)
