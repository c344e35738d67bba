"""Checks across all cases, based on facts read from each of them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ppgs.doctor.findings import Finding, error, names_text, ok, warning
from ppgs.formatting import patch_text
from ppgs.plans import Dataset

_RARE_CASES = 5
# Thick slices differ from thin ones by tens; other units by a thousand.
_FAR_OFF = 100
# nnU-Net's reader gives a file with two axes a third of this many times the larger spacing.
_FLAT_SPACING = 900


@dataclass(frozen=True)
class CaseFacts:
    """Facts about one readable case.

    Shape (z, y, x), spacing in mm, orientation where the format has one, a digest of the image's voxels, voxels by
    label value, whether all voxels of a channel are equal, whether nnU-Net, which crops images to where they are not
    zero, keeps any foreground, and whether a channel's voxels are those of the label.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...] | None
    digest: str
    counts: dict[int, int]
    is_constant: bool
    has_foreground: bool
    is_own_label: bool = False

    @property
    def is_flat(self) -> bool:
        """True if the file has two axes."""
        return self.shape[0] == 1 and self.spacing[0] >= _FLAT_SPACING * max(self.spacing[1:])


def check_facts(facts: Sequence[CaseFacts], dataset: Dataset) -> Iterator[Finding]:
    """Check sizes, orientations, intensities, empty labels, rare classes and duplicate images."""
    yield _check_axes(facts)
    yield _check_geometry(facts)
    yield _check_constant(facts)
    yield _check_own_labels(facts)
    yield _check_empty(facts)
    yield _check_classes(facts, dataset)
    yield from _check_ignored(facts, dataset)
    yield _check_duplicates(facts)


def _names(facts: Sequence[CaseFacts]) -> list[str]:
    return [f.name for f in facts]


def _check_geometry(facts: Sequence[CaseFacts]) -> Finding:
    median = [round(statistics.median(axis)) for axis in zip(*(f.shape for f in facts), strict=True)]
    spacings = list(zip(*(f.spacing for f in facts), strict=True))
    ranges = " x ".join(f"{min(a):.3g}-{max(a):.3g}" if min(a) < max(a) else f"{a[0]:.3g}" for a in spacings)
    data = {
        "median_shape": median,
        "spacing_min": [min(a) for a in spacings],
        "spacing_max": [max(a) for a in spacings],
    }
    if any(not min(a) > 0 for a in spacings):
        return error("geometry", f"spacing {ranges} mm is not positive", "correct the headers", **data)
    if (odd := _far_off(facts)) and not any(f.is_flat for f in facts):
        this = " x ".join(f"{s:.3g}" for s in odd[0].spacing)
        typical = " x ".join(f"{statistics.median(a):.3g}" for a in spacings)
        what = f"spacing {this} mm where the median is {typical} mm (z y x): {names_text(_names(odd))}"
        remedy = "write the spacing in mm into the header: is it in metres or micrometres?"
        return error("geometry", what, remedy, **data)
    directions = Counter(tuple(round(v, 2) for v in f.direction) for f in facts if f.direction is not None)
    text = f"median shape {patch_text(median)}, spacing {ranges} mm (z y x)"
    if len(directions) > 1:
        usual = directions.most_common(1)[0][0]
        others = [f for f in facts if f.direction is not None and tuple(round(v, 2) for v in f.direction) != usual]
        remedy = "give all images the same orientation: nnU-Net trains on voxels as they are stored"
        return warning("geometry", f"{text}; {names_text(_names(others), 5)} oriented otherwise", remedy, **data)
    return ok("geometry", text, **data)


def _far_off(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """Return cases with a spacing that nnU-Net would resample to almost nothing, or to more than fits memory."""
    median = _median_spacing(facts)
    return [
        f for f in facts if any(not 1 / _FAR_OFF < s / m < _FAR_OFF for s, m in zip(f.spacing, median, strict=True))
    ]


def _median_spacing(facts: Sequence[CaseFacts]) -> list[float]:
    """Return the median spacing per axis (z, y, x) in mm."""
    return [statistics.median(axis) for axis in zip(*(f.spacing for f in facts), strict=True)]


def _check_axes(facts: Sequence[CaseFacts]) -> Finding:
    # nnU-Net slices across the axis of the largest spacing, the first of equal ones.
    spacing = _median_spacing(facts)
    across = spacing.index(max(spacing))
    sideways = [f for f in facts if 1 in (*f.shape[:across], *f.shape[across + 1 :])]
    if 2 * len(sideways) > len(facts):
        what = f"one voxel along an axis that nnU-Net takes for an image's plane: {names_text(_names(sideways))}"
        remedy = "give that axis the largest spacing, since nnU-Net slices across it, or save 2D images as .png"
        return error("axes", what, remedy)
    flat = [f for f in facts if f.is_flat]
    if 0 < len(flat) < len(facts):
        fewer = flat if 2 * len(flat) <= len(facts) else [f for f in facts if not f.is_flat]
        kind = "two" if fewer is flat else "three"
        what = f"images with two and with three axes; {kind} have: {names_text(_names(fewer))}"
        return error("axes", what, "make a dataset of 2D images and another of 3D images")
    return ok("axes", f"all images have {'two' if flat else 'three'} axes")


def _check_constant(facts: Sequence[CaseFacts]) -> Finding:
    constant = [f for f in facts if f.is_constant]
    if constant:
        what = f"all voxels are equal: {names_text(_names(constant), 5)}"
        return warning("intensities", what, "remove or replace these images")
    return ok("intensities", "every image varies")


def _check_own_labels(facts: Sequence[CaseFacts]) -> Finding:
    if same := [f for f in facts if f.is_own_label and not f.is_constant]:
        what = f"images with the voxels of their label: {names_text(_names(same), 5)}"
        return warning("labels as images", what, "were labels copied to imagesTr? put the scans there")
    return ok("labels as images", "no image is its own label")


def _check_empty(facts: Sequence[CaseFacts]) -> Finding:
    empty = [f for f in facts if not f.has_foreground]
    names = _names(empty)
    if len(empty) == len(facts):
        remedy = "are these the right labels? each needs voxels of a foreground class, within the image's nonzero part"
        return error("empty cases", "no case has any foreground", remedy, cases=names)
    if empty:
        what = f"{len(empty)} of {len(facts)} cases have no foreground: {names_text(names, 5)}"
        remedy = "are their labels missing? healthy cases may stay, but count as NaN in Dice"
        return warning("empty cases", what, remedy, cases=names)
    return ok("empty cases", "every case has foreground")


def _check_classes(facts: Sequence[CaseFacts], dataset: Dataset) -> Finding:
    total = sum(sum(f.counts.values()) for f in facts)
    rows = {}
    for name, value in dataset.foreground.items():
        values = value if isinstance(value, tuple) else (value,)
        voxels = [sum(f.counts.get(v, 0) for v in values) for f in facts]
        rows[name] = {"cases": sum(v > 0 for v in voxels), "voxels": sum(voxels), "share": sum(voxels) / max(1, total)}
    text = ", ".join(f"{name} {100 * r['share']:.2g} % in {r['cases']} cases" for name, r in rows.items())
    absent = [name for name, r in rows.items() if r["cases"] == 0]
    rare = [name for name, r in rows.items() if 0 < r["cases"] < _RARE_CASES]
    if absent:
        remedy = "remove them from dataset.json, or are their labels stored under other values?"
        return warning("classes", f"never labelled: {names_text(absent, 5)}; {text}", remedy, classes=rows)
    if rare:
        remedy = "with five folds some validate or train without them: trust no Dice of these classes"
        what = f"in fewer than {_RARE_CASES} cases: {names_text(rare, 5)}; {text}"
        return warning("classes", what, remedy, classes=rows)
    return ok("classes", text, classes=rows)


def _check_ignored(facts: Sequence[CaseFacts], dataset: Dataset) -> Iterator[Finding]:
    """Warn of ignored voxels in CT images: nnU-Net normalises these by the intensities of all voxels above 0."""
    ignored = dataset.ignore_label
    # nnU-Net ignores the case of a channel's name.
    if ignored is None or "ct" not in (channel.casefold() for channel in dataset.channels):
        return
    labelled = sum(count for f in facts for value, count in f.counts.items() if value > 0)
    if not (count := sum(f.counts.get(ignored, 0) for f in facts)):
        return
    share = count / labelled
    what = f"nnU-Net counts ignored voxels for the normalisation of CT: {100 * share:.3g} % of the voxels it counts"
    remedy = (
        "for a normalisation by labelled voxels alone write their mean, std, percentile_00_5 and percentile_99_5 into "
        "foreground_intensity_properties_per_channel of the plans that 'ppgs prepare' makes, and prepare again"
    )
    yield warning("normalisation", what, remedy, share=share)


def _check_duplicates(facts: Sequence[CaseFacts]) -> Finding:
    by_digest: dict[str, list[str]] = {}
    for case in facts:
        by_digest.setdefault(case.digest, []).append(case.name)
    twice = [" = ".join(names) for names in by_digest.values() if len(names) > 1]
    if twice:
        remedy = "remove the copies: folds would be validated on what they trained on"
        what = f"training images that are the same: {names_text(twice, 5)}"
        return warning("duplicates", what, remedy, pairs=twice)
    return ok("duplicates", "no training image is there twice")
