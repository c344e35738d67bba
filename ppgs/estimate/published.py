"""Uncalibrated speed of a GPU: its published throughput, scaled by what nnU-Net's logs show of one card.

`benchmarks/results/h100_epochs.md` has the logs. How well another card does cannot be told from its figures alone: the
arithmetic of a training grows with a card's tensor throughput or with its memory bandwidth, whichever is scarce. The
range covers both, and the middle is their geometric mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppgs.estimate.cards import plain, same_card
from ppgs.estimate.speed import Speed


@dataclass(frozen=True)
class Throughput:
    """Dense float16 or bfloat16 tensor operations with float32 accumulation, in TFLOP/s, and memory in GB/s."""

    tensor: float
    bandwidth: float


# From NVIDIA's datasheets; of GeForce and TITAN cards from the whitepapers of Turing, GA102, Ada and RTX Blackwell.
# Where these give a figure with sparsity it is halved. Cards without tensor cores (GTX 10, P100) are left out:
# nnU-Net's logs say nothing about them.
THROUGHPUT: dict[str, Throughput] = {
    "rtx2060": Throughput(25.8, 336),
    "rtx2070": Throughput(29.9, 448),
    "rtx2080": Throughput(40.3, 448),
    "rtx2080ti": Throughput(53.8, 616),
    "titanrtx": Throughput(130.5, 672),
    "rtx3060": Throughput(25.6, 360),
    "rtx3070": Throughput(40.6, 448),
    "rtx3080": Throughput(59.5, 760),
    "rtx3090": Throughput(71, 936),
    "rtx4060": Throughput(30.2, 272),
    "rtx4070": Throughput(58.3, 504),
    "rtx4080": Throughput(97.5, 717),
    "rtx4090": Throughput(165.2, 1008),
    "rtx5070": Throughput(61.7, 672),
    "rtx5080": Throughput(112.6, 960),
    "rtx5090": Throughput(209.5, 1792),
    "rtxa4000": Throughput(76.7, 448),
    "rtxa5000": Throughput(111.1, 768),
    "rtxa6000": Throughput(154.8, 768),
    "rtx6000ada": Throughput(364.2, 960),
    "t4": Throughput(65, 320),
    "v100": Throughput(125, 900),
    "v100-16gb": Throughput(125, 900),
    "v100-32gb": Throughput(125, 900),
    "a10": Throughput(125, 600),
    "a10g": Throughput(70, 600),
    "a30": Throughput(165, 933),
    "a40": Throughput(149.7, 696),
    "a100": Throughput(312, 1555),
    "a100-40gb": Throughput(312, 1555),
    "a100-80gb": Throughput(312, 2039),
    "l4": Throughput(121, 300),
    "l40": Throughput(181, 864),
    "l40s": Throughput(362, 864),
    # The PCIe card, which the logs come from; the SXM5 one may be 1.3 (tensor) to 1.6 times (memory) as fast.
    "h100": Throughput(756, 2039),
    "h100-80gb": Throughput(756, 2039),
    "h200": Throughput(989, 4800),
    "b200": Throughput(2250, 8000),
}
_LOGGED = THROUGHPUT["h100"]
# FLOP/s of the logs: eight of ten tasks lie between the first and the last, with this median.
_LOW, _MEDIAN, _HIGH = 68e12, 77.5e12, 86e12
# BrainTumour's, which probably waits for its loaders: a faster card does not help there.
_WAITING = 29e12
# Seconds of a step besides its arithmetic: what Hippocampus's log leaves, and from a captured graph to eager launches.
_OVERHEADS = (0.001, 0.007, 0.010)


@dataclass(frozen=True)
class Rough:
    """Uncalibrated speed of a card: best, expected and worst case."""

    card: str
    fast: Speed
    middle: Speed
    slow: Speed


def rough_speed(device: str) -> Rough | None:
    """Return the uncalibrated speed of a card (`h100`, `NVIDIA H100 PCIe`), or None if its figures are not known."""
    if (card := plain(device)) not in THROUGHPUT:
        # The longest name also says how much memory the card has.
        card = max((known for known in THROUGHPUT if same_card(device, known)), key=len, default="")
    if not card:
        return None
    figures = THROUGHPUT[card]
    scales = sorted((figures.tensor / _LOGGED.tensor, figures.bandwidth / _LOGGED.bandwidth))
    rates = (scales[1] * _HIGH, math.sqrt(scales[0] * scales[1]) * _MEDIAN, min(scales[0] * _LOW, _WAITING))
    lines = (Speed(network="", overhead=o, rate=r) for o, r in zip(_OVERHEADS, rates, strict=True))
    return Rough(card, *lines)
