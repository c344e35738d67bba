"""Cases of a raw folder by its file names, and faults in those names."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ppgs import upstream
from ppgs.doctor.description import Description, ListedCase
from ppgs.doctor.findings import Finding, error, names_text, warning
from ppgs.doctor.nearby import absence, similar
from ppgs.formatting import counted
from ppgs.plans import Dataset

# Files of operating systems and file managers, ignored like all names that begin with a dot.
JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "__macosx", "lost+found"))
_IMAGES = (*upstream.READABLE, ".hdr", ".img", ".mhd", ".raw", ".dcm", ".jpg", ".jpeg", ".npy", ".npz", ".gz", ".zip")
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Case:
    """One training case: its image files (one a channel, or one file with all channels) and its label file."""

    name: str
    images: tuple[Path, ...]
    label: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the case is read from, its label last; the spacing files of TIFF volumes may be absent."""
        spacings = (sidecar(self.images[0], channel=True), sidecar(self.label, channel=False))
        return (*self.images, *filter(None, spacings), self.label)


def sidecar(file: Path, *, channel: bool) -> Path | None:
    """Return the path where nnU-Net's `Tiff3DIO` looks for the spacing of a TIFF file; None for other formats.

    With `channel` the file's name ends in a channel number, such as `_0000`.
    """
    if file.suffix.lower() not in _TIFF:
        return None
    return file.with_name(f"{file.stem[:-5] if channel else file.stem}.json")


def find_cases(folder: Path, description: Description, *, decathlon: bool) -> tuple[list[Case], list[Finding]]:
    """Return the usable cases of a raw folder, sorted by name, and findings about all others."""
    dataset = description.layout
    found: list[Finding] = []
    if description.listed is not None and not decathlon and dataset is not None:
        cases = _listed_cases(folder, dataset, description.listed, found)
    else:
        images, labels = folder / "imagesTr", folder / "labelsTr"
        missing = [part for part in (images, labels) if not part.is_dir()]
        for part in missing:
            layout = "the Decathlon's archive" if decathlon else "nnU-Net's layout"
            remedy = f"images go to imagesTr and labels to labelsTr, as in {layout}"
            if part.is_symlink() and not part.exists():
                what = f"{part.name} is {absence(part)}"
            elif part.exists():
                what = f"{part.name} is a file, not a folder"
            else:
                what = f"the folder has no {part.name}"
                if (other := similar(folder, part.name)) not in (None, "imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                    remedy = f"is {other} meant? {remedy}"
            found.append(error("cases", what, remedy, folder))
        if missing or dataset is None:
            return [], found
        try:
            cases = (_decathlon_cases if decathlon else _nnunet_cases)(images, labels, dataset, found)
        except OSError as problem:
            found.append(error("cases", f"cannot be read: {problem.strerror}", "ask for permission", problem.filename))
            return [], found
    if not cases and not any(f.level == "error" for f in found):
        if description.listed is not None and not decathlon:
            remedy = "list the cases, or remove the key to have those in imagesTr used"
            found.append(error("cases", "dataset.json lists no cases", remedy, f"{folder / 'dataset.json'}: dataset"))
        else:
            remedy = "put the images there, or give another folder"
            found.append(error("cases", "there are no training images", remedy, folder / "imagesTr"))
    found += _check_names(cases, folder)
    if not any(f.level == "error" for f in found):
        found += _check_count(description.content, cases, folder, decathlon=decathlon)
    return cases, found


def _listed_cases(folder: Path, dataset: Dataset, listed: Mapping[str, ListedCase], found: list[Finding]) -> list[Case]:
    """Return the cases that `dataset.json` lists by file (its key `dataset`)."""
    ending, channels, cases = dataset.file_ending, len(dataset.channels), []
    where = folder / "dataset.json"
    for name, entry in sorted(listed.items()):
        if name in ("", ".", "..") or any(c in name for c in "/\\\0") or not is_text(name):
            what, remedy = f"the case name {name!r} cannot name a file", "rename the case"
            found.append(error("cases", what, remedy, f"{where}: dataset"))
            continue
        files = [Path(os.path.abspath(folder / os.path.expandvars(f))) for f in (*entry.images, entry.label)]  # noqa: PTH100
        wrong = [f for f in files if not is_text(str(f)) or not f.is_file()]
        for file in wrong:
            what = f"dataset.json lists a file of {name} that is {absence(file)}"
            found.append(error("cases", what, "correct the path, or restore the file", file))
        others = [f for f in files if f not in wrong and not f.name.endswith(ending)]
        for file in others:
            what, remedy = f"this file of {name} does not end with {ending}", f"convert it to {ending}"
            found.append(error("cases", what, remedy, file))
        if len(entry.images) not in (1, channels):
            what = f"{name} lists {len(entry.images)} images; dataset.json names {_channels(dataset)}"
            found.append(error("cases", what, "list one file per channel", f"{where}: dataset"))
        elif not wrong and not others:
            cases.append(Case(name, tuple(files[:-1]), files[-1]))
    return cases


def _channels(dataset: Dataset) -> str:
    count = len(dataset.channels)
    names = names_text(dataset.channels)
    return f"1 channel ({names})" if count == 1 else f"{count} channels ({names})"


def _visible(
    folder: Path, ending: str, found: list[Finding], skipped: str = ".", *, decathlon: bool = False
) -> list[str]:
    """Return names of files with that ending; other images, folders and dead links become findings."""
    names: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    dead: list[str] = []
    passed: list[str] = []
    hidden: list[str] = []
    garbled: list[str] = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if not is_text(name):
            garbled.append(name)
        elif name.startswith(tuple(skipped)) or name.casefold() in JUNK:
            if not name.startswith("._") and name.lower().endswith(_IMAGES):
                hidden.append(name)
        elif path.is_file():
            is_image = name.lower().endswith(_IMAGES)
            (names if name.endswith(ending) else others if is_image else passed).append(name)
        elif path.is_symlink() and not path.exists():
            dead.append(name)
        else:
            (folders if name.lower().endswith(_IMAGES) else passed).append(name)
    if capitals := [name for name in others if name.lower().endswith(ending.lower())]:
        what = (
            f"{counted(len(capitals), 'file')} with other capitals in the ending than {ending}: {names_text(capitals)}"
        )
        found.append(error("cases", what, f"let all names end in {ending}", folder))
    if others := [name for name in others if name not in capitals]:
        what = f"{counted(len(others), 'file')} of another ending than {ending}: {names_text(others)}"
        stated = "" if decathlon else " (file_ending in dataset.json)"
        remedy = f"convert them to {ending}{stated}, or remove them"
        theirs = {next(e for e in _IMAGES if name.lower().endswith(e)) for name in others}
        if not decathlon and not names and len(theirs) == 1 and (common := theirs.pop()) in upstream.READABLE:
            remedy = f'if all files are to be used, write in dataset.json: "file_ending": "{common}"'
        found.append(error("cases", what, remedy, folder))
    if garbled:
        what = f"names that are not UTF-8 text, which ITK cannot open: {names_text(garbled)}"
        found.append(error("cases", what, "rename these files", folder))
    if folders:
        what = f"folders where files are expected: {names_text(folders)}"
        found.append(error("cases", what, f"put the {ending} files themselves there", folder))
    if dead:
        what = f"links that lead nowhere: {names_text(dead)}"
        found.append(error("cases", what, "restore the files that they point to, or remove the links", folder))
    if hidden:
        what = f"passed over, as their names begin with a dot: {names_text(hidden)}"
        found.append(warning("files", what, "rename them if they are cases", folder))
    if passed := [name for name in passed if not name.endswith(".json")]:
        what = f"passed over, as they are no {ending} files: {names_text(passed)}"
        found.append(warning("files", what, "remove what does not belong there", folder))
    return names


def is_text(name: str) -> bool:
    """Return whether a file name is UTF-8, which libraries written in C++ need."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decathlon_cases(images: Path, labels: Path, dataset: Dataset, found: list[Finding]) -> list[Case]:
    # The converter ignores both kinds of names.
    names = set(_visible(images, dataset.file_ending, found, "._", decathlon=True))
    labelled = set(_visible(labels, dataset.file_ending, found, "._", decathlon=True))
    names, labelled = _without_misspelled(names, labelled, dataset.file_ending, labels, found)
    if missing := sorted(names - labelled):
        remedy = "add it under the image's name, or move the image to imagesTs"
        plain = re.sub(r"_[0-9]{4}(?=\.nii\.gz$)", "", missing[0])
        if plain in labelled and plain not in names:
            remedy = f"images of the Decathlon carry no channel number: rename {missing[0]} to {plain}"
        found.append(error("cases", _lacking("label", missing), remedy, labels / missing[0]))
    if missing := sorted(labelled - names):
        remedy = "add it under the label's name, or remove the label"
        found.append(error("cases", _lacking("image", missing), remedy, images / missing[0]))
    return [Case(n.removesuffix(dataset.file_ending), (images / n,), labels / n) for n in sorted(names & labelled)]


def _lacking(what: str, names: list[str]) -> str:
    return f"the {what} of {names[0]} is missing" if len(names) == 1 else f"{what}s are missing: {names_text(names)}"


def _nnunet_cases(images: Path, labels: Path, dataset: Dataset, found: list[Finding]) -> list[Case]:
    ending, expected = dataset.file_ending, list(range(len(dataset.channels)))
    labelled = {name.removesuffix(ending) for name in _visible(labels, ending, found)}
    channels: dict[str, dict[int, Path]] = {}
    plain: list[str] = []
    for name in _visible(images, ending, found):
        match = re.fullmatch(r"(.+)_([0-9]{4})", name.removesuffix(ending), re.DOTALL)
        # scan_0001 with a label scan_0001, but none of scan: four digits that are no channel number. Where all are
        # _0000, it is the labels that carry one.
        if match is None or (match[1] not in labelled and match[0] in labelled and match[2] != "0000"):
            plain.append(name)
        else:
            channels.setdefault(match[1], {})[int(match[2])] = images / name
    for name in [n for n in channels if f"{n}_0000" in labelled and any(p.startswith(f"{n}_") for p in plain)]:
        plain += [path.name for path in channels.pop(name).values()]
    if plain:
        plain.sort()
        example = plain[0].removesuffix(ending)
        numbers = "_0000" if len(expected) == 1 else f"_0000 to _{expected[-1]:04d}"
        what = f"{counted(len(plain), 'image')} without channel number: {names_text(plain)}"
        remedy = f"nnU-Net expects CASE{numbers} + {ending}: rename {plain[0]} to {example}_0000{ending}"
        found.append(error("cases", what, remedy, images))
    known, labelled = _without_misspelled(set(channels), labelled, ending, labels, found)
    missing = sorted(known - labelled)
    if missing:
        remedy = "add it, or move the image to imagesTs"
        if numbered := [name for name in missing if f"{name}_0000" in labelled]:
            remedy = f"labels carry no channel number: rename {numbered[0]}_0000{ending} to {numbered[0]}{ending}"
        found.append(error("cases", _lacking("label", missing), remedy, labels / f"{missing[0]}{ending}"))
    accounted = {n.removesuffix(ending) for n in plain} | channels.keys() | {f"{n}_0000" for n in missing}
    if unlabelled := sorted(labelled - accounted):
        remedy = f"add {unlabelled[0]}_0000{ending}, or move the label out of labelsTr"
        found.append(error("cases", _lacking("image", unlabelled), remedy, images / f"{unlabelled[0]}_0000{ending}"))
    # One file may hold all channels (a picture's colours, a fourth axis): its voxels say how many there are.
    one_file = all(list(found_) == [0] for found_ in channels.values()) or ending.lower() in upstream.PICTURES
    wrong: dict[tuple[int, ...], list[str]] = {}
    cases = []
    for name, files in sorted(channels.items()):
        numbers_found = tuple(sorted(files))
        if list(numbers_found) != expected and not (numbers_found == (0,) and one_file):
            wrong.setdefault(numbers_found, []).append(name)
        elif name in labelled:
            cases.append(Case(name, tuple(files[n] for n in numbers_found), labels / f"{name}{ending}"))
    for numbers_found, names in wrong.items():
        have = ", ".join(f"{n:04d}" for n in numbers_found)
        what = f"{names_text(names)} with channel {have}; dataset.json names {_channels(dataset)}"
        needed = ", ".join(f"_{n:04d}" for n in expected[:10])
        remedy = f"each case needs the files {needed}, the same channel under the same number in all cases"
        found.append(error("cases", what, remedy, images))
    return cases


def _without_misspelled(
    images: set[str], labels: set[str], ending: str, folder: Path, found: list[Finding]
) -> tuple[set[str], set[str]]:
    """Report and leave out images and labels whose names differ only in capitals or Unicode form."""
    unlabelled = {_plain(name): name for name in images - labels}
    pairs = {name: unlabelled[_plain(name)] for name in sorted(labels - images) if _plain(name) in unlabelled}
    for label, image in pairs.items():
        is_form = unicodedata.normalize("NFC", label) == unicodedata.normalize("NFC", image)
        differ = "in how letters such as ü are stored (Unicode form)" if is_form else "in capitals"
        label, image = (name.removesuffix(ending) for name in (label, image))
        what = f"the names of the label {label} and of its image {image} differ {differ}"
        found.append(error("cases", what, "give both the same name", folder / f"{label}{ending}"))
    return images - set(pairs.values()), labels - pairs.keys()


def _plain(name: str) -> str:
    """Normalise a name as on a disk that ignores case and the Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def _check_names(cases: list[Case], folder: Path) -> Iterator[Finding]:
    """Report names whose preprocessed files would replace each other, or that nnU-Net takes for labels."""
    if taken := [case.name for case in cases if case.name.endswith("_seg")]:
        what = f"case names that end in _seg: {names_text(taken)}"
        remedy = "rename them: nnU-Net stores the label of case a as a_seg, and takes such a case for a label"
        yield error("cases", what, remedy, folder)
    owners: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for case in cases:
        for suffix in ("", "_seg"):
            file = _plain(case.name + suffix)
            other = owners.setdefault(file, case.name)
            if other == case.name or (other, case.name) in told:
                continue
            told.add((other, case.name))
            if not case.name.endswith("_seg") and not other.endswith("_seg"):
                what = f"the files of '{other}' and '{case.name}' would replace each other"
                remedy = "rename one of them: on disks that ignore case their names are the same"
                yield error("cases", what, remedy, folder)


def _check_count(
    content: Mapping[str, object], cases: list[Case], folder: Path, *, decathlon: bool
) -> Iterator[Finding]:
    where = folder / "dataset.json"
    stated = content.get("numTraining")
    if stated is not None and (not isinstance(stated, (int, float)) or isinstance(stated, bool)):
        what = f"numTraining: expected a number, found {json.dumps(stated, ensure_ascii=False)[:80]}"
        yield warning("files", what, f'write: "numTraining": {len(cases)}', f"{where}: numTraining")
    elif stated is not None and stated != len(cases):
        what = f"numTraining is {stated}, and there are {len(cases)} training cases"
        yield warning("files", what, "are cases missing? if not, correct the number", f"{where}: numTraining")
    listed = content.get("training")
    if decathlon and isinstance(listed, list):
        known = {case.images[0].name for case in cases}
        names = [Path(str(e.get("image", ""))).name for e in listed if isinstance(e, dict)]
        if missing := sorted(name for name in names if name and name not in known):
            what = f"dataset.json lists training images that are not there: {names_text(missing)}"
            yield warning("files", what, "restore them, or remove them from the list", f"{where}: training")
