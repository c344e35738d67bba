"""Classes whose names differ only by left and right."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ppgs.doctor.findings import Finding, ok, warning
from ppgs.plans import Dataset

_SIDES = {"left": "right", "l": "r", "lt": "rt", "sin": "dex", "links": "rechts"}
_SIDES |= {b: a for a, b in _SIDES.items()}


def mirrored_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only by left and right: `kidney_left`/`kidney_right`, `L_ear`/`R_ear`."""
    by_words = {tuple(_words(name)): name for name in names}
    pairs = set()
    for words, name in by_words.items():
        for index, word in enumerate(words):
            other = by_words.get((*words[:index], _SIDES.get(word, ""), *words[index + 1 :]))
            if other is not None:
                pairs.add((min(name, other), max(name, other)))
    return sorted(pairs)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", spaced) if w]


def check_sides(dataset: Dataset) -> Finding:
    """Warn of classes that mirroring swaps."""
    pairs = mirrored_pairs(list(dataset.foreground))
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
