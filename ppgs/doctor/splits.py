"""Checks of cross-validation folds that a user brings (`splits_final.json`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppgs import upstream
from ppgs.doctor.findings import Finding, error, names_text, ok, warning
from ppgs.doctor.json_text import Unreadable, kind_of, read_json_text

_FORM = 'write: [{"train": ["case_01", "case_02"], "val": ["case_03"]}, ...], one object per fold'


def splits_in_use(raw: Path, preprocessed: Path) -> Path | None:
    """Return the file of folds that a training uses: the prepared ones, else those of the raw dataset."""
    paths = (folder / upstream.SPLITS for folder in (preprocessed, raw))
    return next((path for path in paths if path.exists() or path.is_symlink()), None)


def check_splits_file(path: Path, cases: Sequence[str] | None) -> list[Finding]:
    """Check all folds in a file, whichever is trained; `cases` is None if not known."""
    remove = "or remove the file to have nnU-Net's five folds made"
    try:
        folds, twice = read_json_text(path)
    except PermissionError:
        return [error("splits", "permission denied", "ask for permission to read the folds", path)]
    except OSError as problem:
        return [error("splits", f"cannot be read: {problem.strerror}", f"correct that, {remove}", path)]
    except Unreadable as problem:
        return [error("splits", problem.what, f"{problem.remedy}; {remove}", path)]
    return [*(error("splits", what, remedy, path) for what, remedy in twice), *check_splits(folds, cases, path)]


def check_splits(folds: Any, cases: Sequence[str] | None, path: Path | str = upstream.SPLITS) -> list[Finding]:
    """Check folds as `splits_final.json` lists them."""
    if not isinstance(folds, list) or not folds:
        what = "an empty list" if folds == [] else f"not a list but {kind_of(folds)}"
        return [error("splits", f"the folds are {what}", _FORM, path)]
    known = None if cases is None else set(cases)
    found = [finding for n, fold in enumerate(folds) for finding in _check_fold(fold, known, f"{path}: fold {n}")]
    return found or [ok("splits", f"{len(folds)} folds, no case on both sides of one")]


def _check_fold(fold: Any, known: set[str] | None, where: str) -> Iterator[Finding]:
    if not isinstance(fold, dict):
        yield error("splits", f"a fold is {kind_of(fold)}, not an object", _FORM, where)
        return
    parts: dict[str, list[str]] = {}
    for part in ("train", "val"):
        if part not in fold:
            there = ", ".join(map(repr, fold)) or "none"
            yield error("splits", f"missing key '{part}'; keys are {there}", _FORM, where)
        elif not isinstance(fold[part], list) or not all(isinstance(case, str) for case in fold[part]):
            yield error("splits", f"'{part}' is not a list of case names", _FORM, where)
        elif not fold[part]:
            side = "training" if part == "train" else "validation"
            yield error("splits", f"a fold without {side} cases", f"name some under '{part}'", where)
        else:
            parts[part] = fold[part]
    for part, names in parts.items():
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            what = f"{names_text(twice)} {'are' if len(twice) > 1 else 'is'} listed more than once under '{part}'"
            yield warning("splits", what, "list each case once, unless it is meant to count more", where)
    training, validation = (set(parts.get(part, ())) for part in ("train", "val"))
    if both := sorted(training & validation):
        yield error("splits", f"{_are(both)} trained on and validated", "leave each case on one side of a fold", where)
    if known is not None and (strange := sorted((training | validation) - known)):
        yield error("splits", f"{_are(strange)} not in the dataset", _right_name(strange, known), where)


def _right_name(strange: Sequence[str], known: set[str]) -> str:
    for name in strange:
        if re.search(r"_[0-9]{4}$", name) and name[:-5] in known:
            return f"case names carry no channel number: write {name[:-5]} for {name}"
        if (case := next((name[:i] for i, c in enumerate(name) if c == "." and name[:i] in known), None)) is not None:
            return f"case names carry no file ending: write {case} for {name}"
    return "correct the names, or restore the cases"


def _are(names: Sequence[str]) -> str:
    return f"{names_text(names)} {'are' if len(names) > 1 else 'is'}"
