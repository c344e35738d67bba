"""Classes whose names differ only by left and right."""

from __future__ import annotations

from ppgs.doctor.findings import Finding, ok, warning
from ppgs.plans import Dataset


def check_sides(dataset: Dataset) -> Finding:
    """Warn of classes that mirroring swaps."""
    pairs = dataset.sides
    if not pairs:
        return ok("sides", "no classes that differ by left and right alone")
    text = ", ".join(f"{a} / {b}" for a, b in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
    return warning(
        "sides",
        f"classes that differ by their side alone: {text}; mirroring swaps them, and small patches cannot tell sides",
        "train with --mirroring off, or each pair as one class whose sides are separated afterwards",
        "dataset.json: labels",
        pairs=[list(p) for p in pairs],
    )
