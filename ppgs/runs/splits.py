"""Splits made by ppgs, extended with new cases: no old case moves between folds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppgs.runs.atomic import write_text
from ppgs.runs.cascade import Split


def followed(splits: Sequence[Split], cases: Iterable[str]) -> list[Split]:
    """Return cross-validation splits of `cases` in which every old case is validated by the same fold as before.

    Each new case goes to the fold that validates the fewest.
    """
    names = sorted(set(cases))
    validated = [[case for case in fold["val"] if case in set(names)] for fold in splits]
    old = {case for fold in validated for case in fold}
    for case in names:
        if case not in old:
            min(validated, key=len).append(case)
    return [{"train": [c for c in names if c not in set(fold)], "val": sorted(fold)} for fold in validated]


def is_cross_validation(splits: Sequence[Split]) -> bool:
    """Return whether every case is validated by one fold and trained by all others, as nnU-Net splits them."""
    validated = [case for fold in splits for case in fold["val"]]
    return len(validated) == len(set(validated)) and all(
        sorted([*fold["train"], *fold["val"]]) == sorted(validated) for fold in splits
    )


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write `splits_final.json` as nnU-Net does."""
    write_text(path, json.dumps(splits, indent=1))
