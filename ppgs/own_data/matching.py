"""Matching of images, channels and labels by their names.

A label's name is the name of its case, without what all labels have in common (`seg_`, `-mask`). An image belongs to
the case with which its name begins; what follows is its channel (`_0000`, `_t1`). Names are compared word by word:
upper case and separators do not count, and `case_1` does not begin `case_10`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ppgs.doctor.findings import names_text
from ppgs.errors import Problem, nearest_name
from ppgs.own_data.listing import File

_WORD = re.compile(r"[^\W\d_]+|\d+")
# How names say that a file is an image or a label; a folder with a single case has no other to compare with.
_IMAGE_ROLES = frozenset(("image", "images", "img", "imgs", "imaging", "volume", "vol", "scan"))
_LABEL_ROLES = frozenset(
    ("label", "labels", "lbl", "labelmap", "seg", "segs", "segmentation", "segmentations", "mask", "masks")
) | frozenset(("gt", "groundtruth", "truth", "annotation", "annotations", "roi", "manual"))
_ROLES = _IMAGE_ROLES | _LABEL_ROLES
# More words than this in common are not looked at.
_MOST_COMMON = 4


@dataclass(frozen=True)
class _Name:
    """A file's name as words in lower case, and the position where each word ends."""

    file: File

    @cached_property
    def found(self) -> list[re.Match[str]]:
        return list(_WORD.finditer(self.file.name))

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(match[0].casefold() for match in self.found) or (self.file.name,)

    def text(self, first: int, end: int) -> str:
        """Return the part of the name between two words, without separators around it."""
        if not self.found or first >= end:
            return self.file.name if not self.found else ""
        return self.file.name[self.found[first].start() : self.found[end - 1].end()]


@dataclass(frozen=True)
class Case:
    """One case: its images, one per channel in the order of the channels, and its label."""

    name: str
    images: tuple[File, ...]
    label: File


@dataclass
class Matched:
    """Complete cases by name, channel names from file names (empty if there are none), and problems."""

    channels: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _Attempt:
    """The cases under one assumption about the parts of names that do not belong to the case."""

    labels: dict[tuple[str, ...], list[_Name]]
    names: dict[tuple[str, ...], str]
    images: dict[tuple[str, ...], dict[str, list[_Name]]]
    strangers: list[_Name]

    @cached_property
    def channels(self) -> frozenset[str]:
        """The channels that most cases have."""
        sets = Counter(frozenset(channels) for channels in self.images.values())
        most = max(sets.values(), default=0)
        return max(
            (s for s, count in sets.items() if count == most), key=lambda s: (len(s), sorted(s)), default=frozenset()
        )

    def is_complete(self, key: tuple[str, ...]) -> bool:
        found = self.images.get(key, {})
        if not found or len(self.labels[key]) > 1:
            return False
        return found.keys() == self.channels and all(len(f) == 1 for f in found.values())

    @cached_property
    def score(self) -> int:
        return sum(self.is_complete(key) for key in self.labels)

    @property
    def is_perfect(self) -> bool:
        return not self.strangers and self.score == len(self.labels)


def match(images: Sequence[File], labels: Sequence[File], images_folder: object, labels_folder: object) -> Matched:
    """Match images and labels. Every file is part of exactly one case or reported in a problem."""
    image_names, label_names = [_Name(file) for file in images], [_Name(file) for file in labels]
    best: _Attempt | None = None
    for stripped in _assumptions(image_names, label_names):
        attempt = _attempt(image_names, label_names, *stripped)
        if best is None or attempt.score > best.score:
            best = attempt
        if best.is_perfect:
            break
    assert best is not None
    return _as_matched(best, images_folder, labels_folder)


def _assumptions(images: Sequence[_Name], labels: Sequence[_Name]) -> Iterator[tuple[int, int, int]]:
    """Yield numbers of words at the ends of names that do not belong to a case; fewest first."""
    first_of_images = range(_common(images, last=False) + 1)
    first_of_labels = range(_common(labels, last=False) + 1)
    last_of_labels = range(_common(labels, last=True) + 1)
    shortest = min((len(name.words) for name in labels), default=1)
    every = [(a, b, c) for a in first_of_images for b in first_of_labels for c in last_of_labels if b + c < shortest]
    yield from sorted(every, key=lambda counts: (sum(counts), counts[0] + counts[1]))


def _common(names: Sequence[_Name], *, last: bool) -> int:
    """Return how many words all names share at an end; for a single name, those that describe its kind of image."""
    words = [name.words[::-1] if last else name.words for name in names]
    if len(words) == 1:
        count = 0
        while count < len(words[0]) - 1 and words[0][count] in _ROLES:
            count += 1
        return count
    count = 0
    shortest = min(map(len, words), default=1)
    while count < min(shortest - 1, _MOST_COMMON) and len({w[count] for w in words}) == 1:
        count += 1
    return count


def _attempt(
    images: Sequence[_Name], labels: Sequence[_Name], image_first: int, label_first: int, label_last: int
) -> _Attempt:
    cases: dict[tuple[str, ...], list[_Name]] = {}
    names: dict[tuple[str, ...], str] = {}
    for name in labels:
        end = len(name.words) - label_last
        key = name.words[label_first:end]
        cases.setdefault(key, []).append(name)
        names.setdefault(key, name.text(label_first, end))
    found: dict[tuple[str, ...], dict[str, list[_Name]]] = {}
    strangers: list[_Name] = []
    for name in images:
        words = name.words[image_first:]
        length = next((n for n in range(len(words), 0, -1) if words[:n] in cases), None)
        if length is None:
            strangers.append(name)
            continue
        channel = name.text(image_first + length, len(name.words)).casefold() if length < len(words) else ""
        found.setdefault(words[:length], {}).setdefault(channel, []).append(name)
    return _Attempt(cases, names, found, strangers)


def _ordered(channels: Collection[str]) -> list[str]:
    """Sort channels by number, or by name."""
    numbers = all(channel.isdecimal() for channel in channels)
    return sorted(channels, key=lambda channel: (int(channel), channel) if numbers else (0, channel))


def _as_matched(attempt: _Attempt, images_folder: object, labels_folder: object) -> Matched:
    channels = _ordered(attempt.channels)
    found = Matched(channels)
    names = {name.casefold(): name for name in attempt.names.values()}
    for stranger in attempt.strangers:
        near = nearest_name(stranger.file.name.casefold(), names)
        hint = f"the nearest label is {names[near]}" if near is not None else "add its label"
        found.problems.append(
            Problem(
                "no label belongs to this image",
                str(stranger.file.path),
                f"{hint}: an image's name must begin with its label's; rename it, or move it to another folder",
            )
        )
    for key, label in sorted(attempt.labels.items()):
        if attempt.is_complete(key):
            files = tuple(attempt.images[key][channel][0].file for channel in channels)
            found.cases.append(Case(attempt.names[key], files, label[0].file))
        else:
            found.problems += _problems_of(attempt, key)
    if (role := next((c for c in channels if set(_WORD.findall(c)) & _LABEL_ROLES), None)) is not None:
        example = names_text([case.images[channels.index(role)].path.name for case in found.cases], 3)
        what = f"files that look like labels are among the images: {example}"
        found.problems.append(
            Problem(what, str(images_folder), f"move them out; labels are read from {labels_folder} alone")
        )
    return found


def _problems_of(attempt: _Attempt, key: tuple[str, ...]) -> Iterator[Problem]:
    case, labels, images = attempt.names[key], attempt.labels[key], attempt.images.get(key, {})
    where, label = str(labels[0].file.path), labels[0].file.path.name
    if len(labels) > 1:
        text = names_text([name.file.path.name for name in labels])
        remedy = "keep one; labels of several classes belong into one file, each class with its own value"
        yield Problem(f"{len(labels)} labels of one case, {case}: {text}", where, remedy)
    for channel, files in sorted(images.items()):
        if len(files) > 1:
            text = names_text([name.file.path.name for name in files])
            which = f"channel '{channel}' of {case}" if channel else case
            yield Problem(
                f"{len(files)} files for {which} (label {label}): {text}", str(files[0].file.path), "keep one of them"
            )
    if not images:
        yield Problem("no image belongs to this label", where, "add its image, or move the label to another folder")
        return
    if missing := _ordered(attempt.channels - images.keys()):
        have = names_text(sorted(n.file.path.name for files in images.values() for n in files))
        of_all = names_text([channel or "(no suffix)" for channel in _ordered(attempt.channels)])
        lacking = names_text([channel or "(no suffix)" for channel in missing])
        yield Problem(
            f"{case} has no image of channel {lacking}; it has {have}",
            where,
            f"every case needs the same channels (most have: {of_all}): add the file, or move the case elsewhere",
        )
    for channel in _ordered(images.keys() - attempt.channels):
        yield Problem(
            f"{case} (label {label}) has an image that most cases do not have: '{channel or case}'",
            str(images[channel][0].file.path),
            "is it another case, whose label is missing? otherwise give every case this channel, or move it elsewhere",
        )
