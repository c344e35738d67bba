"""Checks of what `dataset.json` and the splits say, without looking at images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ppgs.doctor.findings import Finding, error, ok, warning
from ppgs.plans import Dataset

_SIDES = {"left": "right", "l": "r", "lt": "rt", "sin": "dex", "links": "rechts"}
_SIDES |= {b: a for a, b in _SIDES.items()}


def check_labels(dataset: Dataset) -> Iterator[Finding]:
    """Label values as nnU-Net needs them, and classes that differ by their side alone."""
    yield _check_values(dataset)
    yield _check_regions(dataset)
    yield _check_sides(dataset)


def _check_values(dataset: Dataset) -> Finding:
    values = sorted(dataset.values)
    remedy = "renumber the labels from 0 without gaps, in dataset.json and in the label images"
    if dataset.labels.get("background") != 0:
        return error("labels", "there is no label 'background' with value 0", remedy, "dataset.json: labels")
    missing = sorted(set(range(max(values) + 1)) - set(values))
    if missing:
        gaps = ", ".join(map(str, missing[:10]))
        return error("labels", f"label values are not consecutive: {gaps} missing", remedy, "dataset.json: labels")
    if dataset.ignore_label is not None and dataset.ignore_label != max(values):
        return error("labels", f"the ignore label must be the highest value, {max(values)}", remedy, "dataset.json")
    owners: dict[int, str] = {}
    for name, value in dataset.labels.items():
        if isinstance(value, int):
            if value in owners:
                what = f"'{owners[value]}' and '{name}' have the same value {value}"
                return error("labels", what, "give each label a value of its own", "dataset.json: labels")
            owners[value] = name
    return ok("labels", f"{len(dataset.foreground)} foreground classes, values 0 to {max(values)}")


def _check_regions(dataset: Dataset) -> Finding:
    regions = [name for name, value in dataset.labels.items() if isinstance(value, tuple) and len(value) > 1]
    if not regions:
        return ok("regions", "no overlapping regions")
    order = dataset.regions_class_order
    expected = len(dataset.foreground)
    if order is None or len(order) != expected:
        found = "is missing" if order is None else f"has {len(order)} entries"
        what = f"regions_class_order {found}; there are {expected} regions"
        return error("regions", what, "list one value per region, in the order of labels", "dataset.json")
    return ok("regions", f"{len(regions)} regions of several labels")


def mirrored_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ by left and right alone: `kidney_left` and `kidney_right`, `L_ear` and `R_ear`."""
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


def _check_sides(dataset: Dataset) -> Finding:
    pairs = mirrored_pairs(list(dataset.foreground))
    if not pairs:
        return ok("sides", "no classes that differ by left and right alone")
    text = ", ".join(f"{a} / {b}" for a, b in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
    return warning(
        "sides",
        f"classes that differ by their side alone: {text}; mirroring swaps them, and small patches cannot tell sides",
        "train with --mirroring off, or each pair as one class whose sides are told apart afterwards",
        "dataset.json: labels",
        pairs=[list(p) for p in pairs],
    )


def check_splits(folds: Sequence[Mapping[str, Sequence[str]]], cases: Sequence[str]) -> Finding:
    """Cases on both sides of a fold, or that are not there."""
    known = set(cases)
    for number, fold in enumerate(folds):
        training, validation = set(fold.get("train", ())), set(fold.get("val", ()))
        both, strange = sorted(training & validation), sorted((training | validation) - known)
        where = f"splits_final.json: fold {number}"
        if both:
            what = f"{_some(both)} trained on and validated"
            return error("splits", what, "remove the splits to have nnU-Net make new ones, or correct them", where)
        if strange:
            what = f"{_some(strange)} not in the dataset"
            return error("splits", what, "correct the splits, or restore the cases", where)
        if not training or not validation:
            return error("splits", "a fold without training or validation cases", "correct the splits", where)
    return ok("splits", f"{len(folds)} folds, no case on both sides of one")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'are' if len(names) > 1 else 'is'}"
