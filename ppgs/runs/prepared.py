"""Record of the sources of a dataset's prepared cases: `ppgs_prepared.json`, beside nnU-Net's own files.

Every preprocessed folder (nnU-Net's data identifier) has a section with a digest per case. It is written before the
cases are made, and a case's properties file (`.pkl`) says that the case is made: outdated ones are removed first, so
that a kill at any instant leaves a state which the next start completes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppgs import upstream
from ppgs.plans import Dataset
from ppgs.runs.atomic import write_text
from ppgs.tiff import read_spacing

RECORD = "ppgs_prepared.json"


class FileState(NamedTuple):
    """Size in bytes, modification time in ns, and a digest of the content."""

    size: int
    modified: int
    digest: str


# The files of each case: its images, the `.json` files of TIFF volumes, and its label last.
CaseFiles = Mapping[str, Sequence[Path]]
CaseStates = dict[str, tuple[FileState, ...]]


class Section(BaseModel):
    """One preprocessed folder: the digests of its cases' files, and of the settings they were preprocessed with."""

    model_config = ConfigDict(extra="ignore")

    settings: str
    nnunetv2: str | None = None
    cases: dict[str, str] = Field(default_factory=dict)


class Record(BaseModel):
    """The content of `ppgs_prepared.json`.

    `cases` are the raw files as last seen, `dataset` a digest of the `dataset.json` that was taken over, `definition`
    one of what it says about channels and labels, `splits` those of the splits that ppgs made; `changed` is when a
    change of the data was last followed (seconds since 1970).
    """

    model_config = ConfigDict(extra="ignore")

    v: Literal[1] = 1
    cases: CaseStates = Field(default_factory=dict)
    dataset: str | None = None
    definition: str | None = None
    splits: list[str] = Field(default_factory=list)
    changed: float | None = None
    prepared: dict[str, Section] = Field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """A digest per case."""
        return digests_of(self.cases)


def read_record(preprocessed: Path) -> Record | None:
    """Return the record of a preprocessed dataset, or None if there is no readable one."""
    try:
        return Record.model_validate_json((preprocessed / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def write_record(preprocessed: Path, record: Record) -> None:
    """Write the record atomically, unless it is there already."""
    path, text = preprocessed / RECORD, record.model_dump_json() + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)


def look_at(
    files: CaseFiles,
    known: Mapping[str, Sequence[FileState]],
    *,
    threads: int = 1,
    report: Callable[[int, int], None] = lambda _, __: None,
) -> CaseStates:
    """Return the state of all files. Only files whose size or time differs from `known` are read."""
    found: CaseStates = {}
    unknown: list[tuple[str, int, Path]] = []
    for name, paths in files.items():
        before = known.get(name, ())
        # Cases that were recorded without their spacing files are not taken for changed.
        without = [path for path in paths if not _gives_spacing(path)]
        watched = without if len(before) == len(without) else paths
        states = []
        for place, path in enumerate(watched):
            (size, modified), digest = _size_and_time(path), ""
            if len(before) == len(watched) and before[place][:2] == (size, modified):
                digest = before[place].digest
            else:
                unknown.append((name, place, path))
            states.append(FileState(size, modified, digest))
        found[name] = tuple(states)
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(lambda one: _digest_of_part(one[2]), unknown)
        for done, ((name, place, _), digest) in enumerate(zip(unknown, digests, strict=True), 1):
            states = list(found[name])
            states[place] = states[place]._replace(digest=digest)
            found[name] = tuple(states)
            report(done, len(unknown))
    return found


def _gives_spacing(path: Path) -> bool:
    return path.suffix == ".json"


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the modification time in ns; zeros for a spacing file that is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        if _gives_spacing(path):
            return 0, 0
        raise
    return stat.st_size, stat.st_mtime_ns


def _digest_of_part(path: Path) -> str:
    """Return a digest of what a case takes from a file: of all of it, or of the spacing alone."""
    if not _gives_spacing(path):
        return digest_of_file(path)
    try:
        return digest_of(read_spacing(path))
    except (OSError, ValueError):
        return digest_of(None)


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(content: Any) -> str:
    """Return a digest of plain data in which the order of keys counts."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def digests_of(cases: Mapping[str, Sequence[FileState]]) -> dict[str, str]:
    """Return a digest per case."""
    return {name: digest_of([state.digest for state in states]) for name, states in cases.items()}


def data_digest(digests: Mapping[str, str]) -> str:
    """Return one digest of several cases."""
    return digest_of(sorted(digests.items()))


def definition_of(dataset: Dataset) -> str:
    """Return a digest of channels and label values in `dataset.json`, independent of their names."""
    return digest_of([len(dataset.channels), _label_values(dataset), dataset.regions_class_order])


def _label_values(dataset: Dataset) -> list[Any]:
    return [[value, name == "ignore"] for name, value in dataset.labels.items()]


def settings_of(plans: Mapping[str, Any], configuration: Mapping[str, Any], dataset: Dataset) -> str:
    """Return a digest of all inputs of preprocessing besides the case; `configuration` has its inheritance resolved."""
    return digest_of(
        [
            {key: plans.get(key) for key in upstream.PREPROCESSING_PLANS_KEYS},
            {key: configuration.get(key) for key in upstream.PREPROCESSING_CONFIGURATION_KEYS},
            _label_values(dataset),
        ]
    )


@dataclass(frozen=True)
class Changes:
    """Differences between the raw cases and the sources of a preprocessed folder.

    `dated` are those of the changed whose files are merely newer than what was made of them: no record says more.
    `redone` says that all cases are made again because the settings of preprocessing changed.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    dated: tuple[str, ...] = ()
    redone: bool = False

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed or self.redone)

    @property
    def text(self) -> str:
        """Text such as `changed: a, b; new: c; gone: d`."""
        parts = {"changed": self.changed, "new": self.added, "gone": self.removed}
        return "; ".join(f"{what}: {some(cases)}" for what, cases in parts.items() if cases)


def find_changes(
    record: Record | None, identifier: str, settings: str, states: CaseStates, made: Mapping[str, int]
) -> Changes:
    """Compare the raw cases with what `identifier`'s cases were made from.

    `made` has the time (ns) of every case that is preprocessed. A case that the record does not know was made by
    nnU-Net itself or by an older ppgs: it is outdated if one of its raw files is newer.
    """
    section = None if record is None else record.prepared.get(identifier)
    known = {} if section is None else section.cases
    digests = digests_of(states)
    dated = [
        name
        for name, when in made.items()
        if name in states and name not in known and max(state.modified for state in states[name]) > when
    ]
    differing = [name for name, digest in digests.items() if known.get(name, digest) != digest]
    before = set(made) if record is None else {*record.cases, *known, *made}
    return Changes(
        changed=tuple(sorted({*dated, *differing})),
        added=tuple(sorted(set(states) - before)) if before else (),
        removed=tuple(sorted(before - set(states))),
        dated=tuple(sorted(dated)),
        redone=section is not None and section.settings != settings and bool(made),
    )


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> Changes:
    """Return the differences of two sets of cases, each given as digests by case."""
    return Changes(
        changed=tuple(sorted(name for name in before.keys() & now.keys() if before[name] != now[name])),
        added=tuple(sorted(now.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - now.keys())),
    )


def some(names: Sequence[str]) -> str:
    """Join a few names and the number of the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
