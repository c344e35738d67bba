"""A raw nnU-Net dataset from a folder of images and a folder of labels: links, or copies where links cannot do.

The whole dataset is built beside its place and checked there, as nnU-Net will read it, before anything that exists is
changed. Building it again applies changes of the two folders.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

from ppgs.doctor.findings import Finding, files_text, names_text, warnings_of
from ppgs.doctor.folder import check_folder
from ppgs.errors import DatasetError, Problem, Problems
from ppgs.formatting import counted, last_line
from ppgs.nnunet.preparation.conversion import CHECKED, GO_ON, aside_in, is_same, listing
from ppgs.nnunet.preparation.own_files import (
    Target,
    convert,
    is_kept,
    is_ours,
    link,
    same_file,
    source_state,
    spacing_file,
    state_of,
    target_of,
)
from ppgs.nnunet.preparation.own_voxels import channels_in, values_of
from ppgs.nnunet.preparation.raw_checks import Geometry, examine_images
from ppgs.own_data import RECORD
from ppgs.own_data.formats import ENDINGS, PICTURES, stored_ending
from ppgs.own_data.listing import File, list_files
from ppgs.own_data.matching import Case, Matched, match
from ppgs.own_data.naming import Labels, default_channel, name_channels, name_labels
from ppgs.plans import read_json
from ppgs.runs.atomic import sync_folder, temporary_folder, write_text
from ppgs.runs.disk_space import telling_full_disk

# With more values than this, gaps between them mean an interpolated label.
_MOST_WITH_GAPS = 32
_MOST_VALUES = 1000

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Folders:
    """Folders of images and labels, and names of channels (by number or suffix) and of label values."""

    images: Path
    labels: Path
    channels: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unnamed:
    """Channels and label values that a person may be asked to name, each with its default name."""

    channels: dict[str, str]
    values: dict[str, str]


Ask = Callable[[Unnamed], tuple[Mapping[str, str], Mapping[str, str]]]


class OwnData:
    """The dataset `raw` of two folders; `report(step, done, total)` reports progress, `note` receives assumptions."""

    def __init__(
        self,
        folders: Folders,
        raw: Path,
        report: Report,
        note: Callable[[str], object],
        warn: Callable[[str], object],
        *,
        processes: int,
        geometry: Geometry = "header",
    ) -> None:
        self._folders, self._raw, self._report = folders, raw, report
        self._note, self._warn = note, warn
        self._processes, self._geometry = processes, geometry
        self._record = read_json(raw / RECORD) if (raw / RECORD).is_file() else {}

    def make(self, ask: Ask | None = None) -> None:
        """Make or update the dataset; `ask` is called for names given by neither options nor a record.

        Raises `DatasetError` with everything that is wrong.
        """
        problems = Problems()
        matched, passed = self._match(problems)
        if self._is_up_to_date(matched, problems):
            return
        ending = self._ending(matched, problems)
        if ending is None or not matched.cases:
            problems.raise_as(DatasetError, self._summary(problems))
        assert ending is not None
        # What changes from here on is noticed the next time.
        states = _states_of(matched, ending)
        values = self._read_values(matched, ending, problems)
        count = self._count_channels(matched, ending)
        keys = {str(number) for number in range(count)}
        keys |= set(matched.channels) if len(matched.channels) == count else set()
        given = (
            self._given("channels", self._folders.channels, keys),
            self._given("values", self._folders.values, {str(value) for value in {0, *values}}),
        )
        if ask is not None and not problems.found:
            given = self._asked(ask, matched, count, values, given)
        channels = name_channels(matched.channels, count, given[0], problems.found, colours=self._is_coloured(matched))
        labels = name_labels(values, given[1], problems.found)
        if max(labels.names.values()) == 0 and not problems.found:
            problems.add("every label is empty: all voxels are 0", self._folders.labels, "are these the right labels?")
        with temporary_folder(self._raw) as staged, telling_full_disk(staged, GO_ON):
            targets = self._targets(matched, ending, labels)
            records = {target.name: target.to_record(states.get(target.source)) for target in targets}
            self._fill(staged, targets, records, problems)
            _describe(staged, channels, labels, len(matched.cases), ending)
            warnings = self._check(staged, targets, problems)
            problems.raise_as(DatasetError, self._summary(problems))
            self._tell(matched, passed, channels, labels, given, ending)
            for message in warnings:
                self._warn(message)
            self._take_over(staged, records, matched, given)

    def _summary(self, problems: Problems) -> str:
        return f"{len(problems.found)} problems with {self._folders.images} and {self._folders.labels}"

    def _match(self, problems: Problems) -> tuple[Matched, list[str]]:
        images, labels = list_files(self._folders.images, "images"), list_files(self._folders.labels, "labels")
        problems.found += [*images.problems, *labels.problems]
        if not images.files or not labels.files:
            problems.raise_as(DatasetError, self._summary(problems))
        matched = match(images.files, labels.files, self._folders.images, self._folders.labels)
        problems.found += matched.problems
        passed = [str(self._folders.images / name) for name in images.passed]
        # Spacings of TIFF volumes are in files of their own.
        return matched, [name for name in passed if not name.endswith(".json")]

    def _given(self, what: str, named: Mapping[str, str], present: Collection[str] | None = None) -> dict[str, str]:
        """Return the names given by options, and those the dataset was made with if their keys are still `present`."""
        recorded = self._record.get(what, {})
        known = {str(key): str(recorded[key]) for key in recorded if present is None or key in present}
        return {key: name for key, name in known.items() if name not in named.values()} | dict(named)

    def _is_up_to_date(self, matched: Matched, problems: Problems) -> bool:
        """Return whether the dataset exists, made from these very files under these names."""
        if problems.found or not self._record or not (self._raw / "dataset.json").is_file():
            return False
        for what, named in (("channels", self._folders.channels), ("values", self._folders.values)):
            if self._given(what, named) != self._record.get(what, {}):
                return False
        if self._record.get("cases") != _cases_record(matched.cases):
            return False
        made: dict[str, Any] = self._record.get("made", {})
        # A spacing file that was written since is the source of another file than before.
        is_tiff = self._record.get("described", {}).get("file_ending") == ".tiff"
        spacings = [target for case in matched.cases for target in _spacings_of(case)] if is_tiff else []
        for target in spacings:
            entry = made.get(target.name, {})
            if (entry.get("source"), entry.get("how")) != (str(target.source), target.how):
                return False
        return all(
            entry["state"] == source_state(Path(entry["source"])) and is_kept(self._raw / name, entry, entry)
            for name, entry in made.items()
        )

    def _ending(self, matched: Matched, problems: Problems) -> str | None:
        """Return the file ending of the dataset; None if formats are mixed."""
        files = [file for case in matched.cases for file in (*case.images, case.label)]
        if not files:
            return None
        families = Counter(ENDINGS[file.ending] for file in files)
        if len(families) > 1:
            groups = []
            for family in families:
                names = [file.path.name for file in files if ENDINGS[file.ending] == family]
                groups.append(f"{len(names)} {family} ({names_text(names, 2)})")
            first = next(file for file in files if ENDINGS[file.ending] != families.most_common(1)[0][0])
            example = first.path.with_name(first.path.name[: -len(first.ending)] + _first_ending(families))
            problems.add(
                f"images and labels of different formats: {', '.join(groups)}; nnU-Net reads one per dataset",
                first.path,
                "convert them to one format, for instance: import SimpleITK as s; "
                f"s.WriteImage(s.ReadImage('{first.path.name}'), '{example.name}')",
            )
            return None
        if "TIFF" not in families:
            return stored_ending(file.ending for file in files)
        return self._tiff_ending(files, problems)

    def _tiff_ending(self, files: Sequence[File], problems: Problems) -> str | None:
        """Return `.tif` for pictures and `.tiff` for volumes: nnU-Net chooses its reader by the ending."""
        volumes: dict[bool, list[str]] = {False: [], True: []}
        for file in files:
            try:
                with tifffile.TiffFile(file.path) as opened:
                    axes = opened.series[0].axes.replace("S", "")
            except Exception as failure:  # tifffile raises many kinds
                problems.add(f"cannot be read: {last_line(failure)}", file.path, "if it is damaged, get it again")
                continue
            volumes[len(axes) > 2].append(file.path.name)
        if volumes[True] and volumes[False]:
            fewer = min(volumes.values(), key=len)
            problems.add(
                f"TIFF files with one page and with several: {names_text(fewer)} differ from the others",
                files[0].path.parent,
                "make a dataset of pictures and another of volumes",
            )
            return None
        if not volumes[True] and not volumes[False]:
            return None
        return ".tiff" if volumes[True] else ".tif"

    def _read_values(self, matched: Matched, ending: str, problems: Problems) -> set[int]:
        """Return all values in the labels; unusable labels become problems."""
        found: set[int] = set()
        reader = determine_reader_writer_from_file_ending(ending, verbose=False)()

        def read(case: Case) -> tuple[list[float], Problem | None]:
            return values_of(case.label.path, reader, is_picture=ENDINGS[case.label.ending] in PICTURES)

        with ThreadPoolExecutor(self._processes) as pool:
            grouped: dict[tuple[str, str, Path], list[Path]] = {}
            for done, (case, (values, problem)) in enumerate(
                zip(matched.cases, pool.map(read, matched.cases), strict=True), 1
            ):
                if problem is not None:
                    path = case.label.path
                    grouped.setdefault((problem.what, problem.remedy, path.parent), []).append(path)
                found |= {int(value) for value in values}
                self._report("reading the labels", done, len(matched.cases))
        for (what, remedy, _), paths in grouped.items():
            problems.add(what, files_text(paths), remedy)
        gaps = len(found | {0}) < max(found, default=0) + 1
        if len(found) > _MOST_VALUES or (gaps and len(found) > _MOST_WITH_GAPS and not self._folders.values):
            problems.add(
                f"the labels hold {len(found)} different values, up to {max(found)}",
                self._folders.labels,
                "are these images? or masks with smoothed edges, which a threshold mends? if all of them are classes, "
                "name one with --label",
            )
            problems.raise_as(DatasetError, self._summary(problems))
        return found

    def _count_channels(self, matched: Matched, ending: str) -> int:
        """Return the number of channels; in one file there are as many as in most of the first few files."""
        if len(matched.channels) > 1:
            return len(matched.channels)
        counts = Counter(channels_in(case.images[0], ending) for case in matched.cases[:5])
        count = counts.most_common(1)[0][0]
        # A fourth channel of a picture is its transparency, which is reported as such.
        return 3 if self._is_coloured(matched) and count == 4 else count

    @staticmethod
    def _is_coloured(matched: Matched) -> bool:
        """Return whether several channels in one file can only be colours."""
        return ENDINGS[matched.cases[0].images[0].ending] in (*PICTURES, "TIFF") and len(matched.channels) == 1

    def _asked(
        self,
        ask: Ask,
        matched: Matched,
        count: int,
        values: set[int],
        given: tuple[dict[str, str], dict[str, str]],
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Ask for the names that are not given, and return all."""
        keys = matched.channels if len(matched.channels) == count else [""] * count
        named = given[0].keys()
        unnamed = {
            str(number): default_channel(key, number, count)
            for number, key in enumerate(keys)
            if key not in named and str(number) not in named
        }
        classes = {str(v): f"label_{v}" for v in sorted(values - {0}) if str(v) not in given[1]}
        # Colours have names, and nobody wants a hundred questions.
        is_colour = count == 3 and self._is_coloured(matched)
        asked = Unnamed({} if is_colour or len(unnamed) > 8 else unnamed, classes if len(classes) <= 12 else {})
        if not asked.channels and not asked.values:
            return given
        channels, labels = ask(asked)
        return {**given[0], **channels}, {**given[1], **labels}

    def _targets(self, matched: Matched, ending: str, labels: Labels) -> list[Target]:
        """Return the files of the dataset."""
        found = []
        values = labels.values if labels.is_renumbered else {}
        for case in matched.cases:
            for channel, image in enumerate(case.images):
                found.append(target_of(f"imagesTr/{case.name}_{channel:04d}{ending}", image, ending, {}))
            found.append(target_of(f"labelsTr/{case.name}{ending}", case.label, ending, values))
            if ending == ".tiff":
                found += _spacings_of(case)
        return found

    def _fill(
        self, staged: Path, targets: Sequence[Target], records: Mapping[str, dict[str, Any]], problems: Problems
    ) -> None:
        """Make all files; link those that exist already."""
        for part in ("imagesTr", "labelsTr"):
            (staged / part).mkdir()
        converted = []
        for target in targets:
            known = self._record.get("made", {}).get(target.name)
            if target.how == "link":
                link(target.source, staged / target.name)
            elif known is not None and is_kept(self._raw / target.name, known, records[target.name]):
                same_file(self._raw / target.name, staged / target.name)
            else:
                converted.append(target)

        def make(target: Target) -> Problem | None:
            try:
                convert(target, staged / target.name)
            except (OSError, RuntimeError, ValueError) as failure:
                if isinstance(failure, OSError) and failure.errno is not None:
                    raise
                remedy = "if the file is truncated or damaged, get it again"
                return Problem(f"cannot be converted: {last_line(failure)}", str(target.source), remedy)
            return None

        with ThreadPoolExecutor(self._processes) as pool:
            for done, problem in enumerate(pool.map(make, converted), 1):
                self._report("converting", done, len(converted))
                told = {p.where for p in problems.found}
                if problem is not None and problem.where not in told:
                    problems.found.append(problem)

    def _check(self, staged: Path, targets: Sequence[Target], problems: Problems) -> list[str]:
        """Check the dataset as a preparation would; faults are reported of the files it was made from."""
        origin = {str(staged / target.name): str(target.source) for target in targets}
        found = check_folder(staged, staged / "none", decathlon=False)
        findings: list[Finding] = list(found.findings)
        examined = examine_images(
            found,
            decathlon=False,
            geometry=self._geometry,
            report=lambda done, total: self._report("checking images and labels", done, total),
            threads=self._processes,
            origin=origin,
        )
        findings += examined.findings if examined is not None else ()
        told = {problem.where for problem in problems.found}
        for finding in findings:
            if finding.level == "error" and finding.where not in told:
                where = finding.where.replace(str(staged), self._raw.name)
                problems.add(finding.what, where or self._folders.images, finding.remedy)
        return [message.replace(str(staged), str(self._raw)) for message in warnings_of(findings)]

    def _tell(
        self,
        matched: Matched,
        passed: Sequence[str],
        channels: Sequence[str],
        labels: Labels,
        given: tuple[Mapping[str, str], Mapping[str, str]],
        ending: str,
    ) -> None:
        """Report matches and assumptions."""
        first = matched.cases[0]
        images = names_text([file.path.name for file in first.images], 4)
        count = counted(len(matched.cases), "case")
        self._note(f"{count}, matched by name; {first.name} for instance: {images} with {first.label.path.name}")
        told = ", ".join(f"{number} {name}" for number, name in enumerate(channels))
        is_ct = any(name.lower() == "ct" for name in channels)
        assumed = "" if is_ct or given[0] else "; none is taken for CT: for Hounsfield units add --channel 0=CT"
        self._note(f"channels: {told}{assumed}")
        classes = ", ".join(f"{value} {name}" for name, value in labels.names.items() if value)
        unnamed = any(name.startswith("label_") for name in labels.names)
        self._note(f"labels: {classes}{'; name them with --label VALUE=NAME' if unnamed else ''}")
        if labels.is_renumbered:
            change = ", ".join(f"{old} to {new}" for old, new in labels.values.items() if old != new)
            self._note(f"nnU-Net needs values without gaps: in copies of the labels, {change}")
        if ending == ".tiff" and any(spacing_file(case.images[0], case) is None for case in matched.cases):
            self._note('TIFF has no spacing: 1 mm is assumed; else write CASE.json with {"spacing": [z, y, x]}')
        if passed:
            self._note(f"passed over, as they are no images: {names_text(passed, 5)}")

    def _take_over(
        self,
        staged: Path,
        records: Mapping[str, dict[str, Any]],
        matched: Matched,
        given: tuple[Mapping[str, str], Mapping[str, str]],
    ) -> None:
        """Move the built dataset into place: as one folder, or file by file if it exists."""
        made = {name: entry | {"made": state_of(staged / name)} for name, entry in records.items()}
        record = {
            "v": 1,
            "images": str(self._folders.images),
            "labels": str(self._folders.labels),
            "channels": dict(given[0]),
            "values": dict(given[1]),
            "cases": _cases_record(matched.cases),
            "made": made,
            "described": json.loads((staged / "dataset.json").read_text(encoding="utf-8")),
        }
        if not self._raw.exists():
            write_text(staged / RECORD, json.dumps(record))
            write_text(staged / CHECKED, json.dumps(listing(staged) | {"geometry": [self._geometry]}))
            staged.rename(self._raw)
            sync_folder(self._raw.parent)
            return
        before: dict[str, Any] = self._record.get("made", {})
        aside = aside_in(self._raw)
        for name in sorted({*before, *made}):
            path = self._raw / name
            if name in made and name in before and is_kept(path, before[name], made[name]):
                # As it was made, not as edited since.
                made[name]["made"] = before[name]["made"]
                continue
            ours = is_ours(path, before.get(name)) or (name in made and is_same(path, staged / name))
            if os.path.lexists(path) and not ours:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                path.rename(aside / name)
            if name in made:
                path.parent.mkdir(exist_ok=True)
                (staged / name).replace(path)
            else:
                path.unlink(missing_ok=True)
        self._describe_again(record["described"], aside)
        write_text(self._raw / CHECKED, json.dumps(listing(self._raw) | {"geometry": [self._geometry]}))
        write_text(self._raw / RECORD, json.dumps(record))
        if aside.is_dir():
            self._warn(f"what was edited in {self._raw} is kept in {aside}")

    def _describe_again(self, described: dict[str, Any], aside: Path) -> None:
        """Write `dataset.json`, unless it was edited by hand and nothing new must be recorded."""
        path, before = self._raw / "dataset.json", self._record.get("described")
        now = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if now is not None and now not in (before, described):
            if _meaning(described) == _meaning(before):
                return
            aside.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, aside / path.name)
        if now != described:
            write_text(path, json.dumps(described, indent=2))


def _meaning(description: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (description or {}).items() if key != "numTraining"}


def _first_ending(families: Counter[str]) -> str:
    (family, _), *_rest = families.most_common(1)
    return next(ending for ending, name in ENDINGS.items() if name == family)


def _spacings_of(case: Case) -> list[Target]:
    """Return the files where nnU-Net's reader of TIFF volumes looks for the spacing of a case."""
    found = []
    for part, file in (("imagesTr", case.images[0]), ("labelsTr", case.label)):
        given = spacing_file(file, case) or spacing_file(case.images[0], case)
        # Without one nnU-Net assumes the same, and says so of every file.
        source, how = (given, "link") if given is not None else (file.path.absolute(), "convert")
        found.append(Target(f"{part}/{case.name}.json", source, how))
    return found


def _states_of(matched: Matched, ending: str) -> dict[Path, list[int] | None]:
    """Return the state of every file that a dataset is made from."""
    sources = [file.path.absolute() for case in matched.cases for file in (*case.images, case.label)]
    if ending == ".tiff":
        sources += [target.source for case in matched.cases for target in _spacings_of(case)]
    return {path: source_state(path) for path in sources}


def _cases_record(cases: Sequence[Case]) -> dict[str, list[str]]:
    return {case.name: [str(file.path) for file in (*case.images, case.label)] for case in cases}


def _describe(folder: Path, channels: Sequence[str], labels: Labels, count: int, ending: str) -> None:
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels.names,
        "numTraining": count,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
