"""A Decathlon folder in nnU-Net's layout. If the folder changes later, its cases are converted again one by one."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset

from ppgs.errors import DatasetError
from ppgs.nnunet.images.nifti import check_written
from ppgs.plans import read_json
from ppgs.runs.atomic import staged_folder, write_text
from ppgs.runs.disk_space import require_room, telling_full_disk
from ppgs.runs.prepared import CaseStates, Changes, FileState, difference, digests_of, look_at
from ppgs.tasks import Roots, dataset_id

# In the converted dataset: what it was made from, and the sizes and times of the files that were made.
SOURCE = "ppgs_source.json"
CHECKED = "ppgs_checked.json"
GO_ON = "make room: what is prepared stays; then run the same command again (or 'ppgs resume')"

_DESCRIPTION = "dataset.json"
_STAGING = ".ppgs-staging"
_LAST_SECONDS = 10.0


class Conversion:
    """The converted dataset `raw` of a Decathlon folder `source`; `report(step, done, total)` reports progress."""

    def __init__(
        self, source: Path, raw: Path, report: Callable[[str, int, int], None], *, processes: int, checked: str
    ) -> None:
        self._source, self._raw, self._report = source, raw, report
        self._processes, self._checked = processes, checked

    def convert(self) -> None:
        """Convert a checked folder; the dataset must not exist yet."""
        states = self._states({})
        with staged_folder(self._raw) as staging:
            self._convert_into(staging, None)
            write_text(staging / CHECKED, json.dumps(listing(staging) | {"geometry": [self._checked]}))
            self._note(staging, states)

    def changes(self) -> Changes:
        """Compare the folder with the sources of the dataset; `dataset.json` counts as a case of that name.

        Raises `DatasetError` if it was made from another folder.
        """
        made_from = read_json(self._raw / SOURCE)
        if made_from.get("folder") != str(self._source):
            raise DatasetError(
                f"{self._raw.name} was made from another folder: {made_from.get('folder')}",
                self._source,
                "give that folder or the dataset's name, or use another --root",
            )
        if "cases" in made_from:
            known = _states_of(made_from["cases"])
            return difference(digests_of(known), digests_of(self._states(known)))
        # Older versions of ppgs recorded only sizes and times.
        before, now = made_from.get("files", {}), listing(self._source)
        differing = {_case(file) for file in before.keys() | now.keys() if before.get(file) != now.get(file)}
        had, has = ({_case(file) for file in files} for files in (before, now))
        return Changes(
            changed=tuple(sorted(differing & had & has)),
            added=tuple(sorted(has - had)),
            removed=tuple(sorted(had - has)),
        )

    def follow(self, changes: Changes) -> Path | None:
        """Convert changed and new cases of a checked folder.

        Returns the folder with what was taken out of the dataset: files of removed cases, and files that somebody
        edited after the conversion.
        """
        known = _states_of(read_json(self._raw / SOURCE).get("cases", {}))
        states = self._states(known)
        if not changes:
            if states != known:
                self._note(self._raw, states)
            return None
        aside = aside_in(self._raw)
        staging = self._raw / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            converted = {*changes.changed, *changes.added} - {_DESCRIPTION}
            self._convert_into(staging, converted)
            made_by_us = read_json(self._raw / CHECKED) if (self._raw / CHECKED).is_file() else {}
            for case in {*converted, *changes.removed}:
                for path in self._files_of(case):
                    name = str(path.relative_to(self._raw))
                    ours = made_by_us.get(name) == _state(path) or is_same(path, staging / name)
                    if case in changes.removed or not ours:
                        _move(path, aside / name)
            for part in ("imagesTr", "labelsTr"):
                for path in (staging / part).iterdir():
                    path.replace(self._raw / part / path.name)
            described = self._follow_description(staging, changes, made_by_us, aside)
            now = listing(self._raw)
            made = {str(path.relative_to(self._raw)) for case in converted for path in self._files_of(case)}
            checked = {name: now[name] if name in made else state for name, state in made_by_us.items()}
            checked |= {name: now[name] for name in {*made, *described}}
            gone = checked.keys() - now.keys() - {"geometry"}
            write_text(self._raw / CHECKED, json.dumps({n: state for n, state in checked.items() if n not in gone}))
            self._note(self._raw, states)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return aside if aside.is_dir() else None

    def _follow_description(
        self, staging: Path, changes: Changes, made_by_us: dict[str, Any], aside: Path
    ) -> list[str]:
        """Replace `dataset.json`, unless only the copy was edited; return the names of what was replaced."""
        current = self._raw / _DESCRIPTION
        count = sum(1 for _ in (self._raw / "labelsTr").glob("*.nii.gz"))
        content = read_json(staging / _DESCRIPTION) | {"numTraining": count}
        if current.is_file() and current.read_text(encoding="utf-8") == json.dumps(content, indent=2):
            return [_DESCRIPTION]
        edited = current.is_file() and made_by_us.get(_DESCRIPTION) != _state(current)
        if edited and _DESCRIPTION not in changes.changed:
            return []
        if edited:
            shutil.copy2(current, _made(aside) / _DESCRIPTION)
        write_text(current, json.dumps(content, indent=2))
        return [_DESCRIPTION]

    def _files_of(self, case: str) -> list[Path]:
        images = self._raw.joinpath("imagesTr").glob("*.nii.gz")
        label = self._raw / "labelsTr" / f"{case}.nii.gz"
        return [p for p in images if p.name[: -len("_0000.nii.gz")] == case] + ([label] if label.is_file() else [])

    def _states(self, known: CaseStates) -> CaseStates:
        files: dict[str, tuple[Path, ...]] = {_DESCRIPTION: (self._source / _DESCRIPTION,)}
        for label in (self._source / "labelsTr").glob("*.nii.gz"):
            image = self._source / "imagesTr" / label.name
            if not label.name.startswith((".", "_")) and image.is_file():
                files[_case(label.name)] = (image, label)
        return look_at(
            files,
            known,
            threads=self._processes,
            report=lambda done, total: self._report("reading the raw files for changes", done, total),
        )

    def _note(self, raw: Path, states: CaseStates) -> None:
        """Record the sources of the dataset in `raw`."""
        made_from = {"folder": str(self._source), "files": listing(self._source), "cases": states}
        write_text(raw / SOURCE, json.dumps(made_from))

    def _convert_into(self, staging: Path, cases: Collection[str] | None) -> None:
        """Write the dataset in nnU-Net's layout, of some `cases` or of all with the test images."""
        source, name = self._source, self._raw.name
        # nnU-Net's converter takes the name from the folder, wants imagesTs to exist and finds its target and
        # datasets that are in the way through the environment: it gets a view of the source and its own place.
        view = staging / "source" / f"Task{dataset_id(name):02d}_{name.split('_', 1)[1]}"
        view.mkdir(parents=True)
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            if cases is None and (source / part).is_dir():
                (view / part).symlink_to(source / part, target_is_directory=True)
                continue
            (view / part).mkdir()
            for case in cases or () if part != "imagesTs" else ():
                (view / part / f"{case}.nii.gz").symlink_to(source / part / f"{case}.nii.gz")
        content = {"training": [], "test": [], **read_json(source / _DESCRIPTION)}
        content.setdefault("modality", content.get("channel_names"))
        # nnU-Net asks for the name 'background', whatever value 0 is called here.
        content["labels"] = {key: "background" if int(key) == 0 else n for key, n in content["labels"].items()}
        (view / _DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")
        files = list(view.glob("*T[rs]/*.nii.gz"))
        total = sum(1 for path in files if path.parent.name != "labelsTr")
        needed = sum(path.stat().st_size for path in files)
        require_room(staging, needed, "the dataset in nnU-Net's layout", GO_ON)
        place = Roots.under(staging / "place")
        target = place.raw / name

        def converted() -> int:
            return sum(len(list((target / n).glob("*"))) for n in ("imagesTr", "imagesTs"))

        # ITK, which splits channels, does not report a full disk.
        split = target.glob("images*/*") if len(content["modality"]) > 1 else ()
        with environment(place), telling_full_disk(staging, GO_ON):
            with polled(self._report, "converting", converted, total):
                convert_msd_dataset(str(view), dataset_id(name), self._processes)
            check_written(*split)
        shutil.rmtree(staging / "source")
        for item in target.iterdir():
            item.rename(staging / item.name)
        shutil.rmtree(staging / "place")
        labels = len(list((staging / "labelsTr").glob("*.nii.gz")))
        dataset = read_json(staging / _DESCRIPTION) | {"numTraining": labels}
        write_text(staging / _DESCRIPTION, json.dumps(dataset, indent=2))


@contextmanager
def polled(
    report: Callable[[str, int, int], object], step: str, count: Callable[[], int], total: int
) -> Iterator[None]:
    """Report the progress of an nnU-Net function that reports none itself."""
    ended = threading.Event()
    before = 0

    def look() -> None:
        nonlocal before
        if (done := min(count(), total)) != before:
            report(step, done, total)
            before = done

    def poll() -> None:
        while not ended.wait(0.5):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # It may hang in `count` or `report` on an unresponsive file server.
        thread.join(_LAST_SECONDS)
    if not thread.is_alive():
        # Report functions that ended before the first poll too.
        look()


def aside_in(raw: Path) -> Path:
    """Return where files of a dataset made by ppgs are kept if their case was removed or somebody edited them."""
    return raw / "ppgs_replaced" / time.strftime("%Y%m%d-%H%M%S")


def is_same(path: Path, other: Path) -> bool:
    """Return whether two files, or two links, have the same content.

    A file that a killed update has put into place is not recorded as ours, but is made again in the same way.
    """
    if path.is_symlink() or other.is_symlink():
        return path.is_symlink() and other.is_symlink() and path.readlink() == other.readlink()
    return path.is_file() and other.is_file() and filecmp.cmp(path, other, shallow=False)


def listing(folder: Path, named: Iterable[Path] = ()) -> dict[str, list[Any]]:
    """Return size and modification time of `dataset.json`, all images and labels of a raw folder, and `named` files."""
    parts = [folder / _DESCRIPTION, *(p for n in ("imagesTr", "labelsTr") for p in (folder / n).glob("*")), *named]
    return {str(p.relative_to(folder) if p.is_relative_to(folder) else p): _state(p) for p in parts if p.is_file()}


@contextmanager
def environment(roots: Roots) -> Iterator[None]:
    """Within the block, set nnU-Net's folders, which it reads from the environment whenever it needs them."""
    for folder in roots.folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in roots.environment}
    os.environ.update(roots.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _case(file: str) -> str:
    return Path(file).name.removesuffix(".nii.gz")


def _state(path: Path) -> list[Any]:
    return [path.stat().st_size, path.stat().st_mtime]


def _states_of(record: dict[str, Any]) -> CaseStates:
    return {name: tuple(FileState(*state) for state in states) for name, states in record.items()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _move(path: Path, target: Path) -> None:
    _made(target.parent)
    path.rename(target)
