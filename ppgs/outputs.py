"""Guards the files that a command is asked to write, so that nothing but ppgs's own outputs is ever replaced.

One rule for all commands: an existing file may be replaced if it is, byte for byte, what ppgs last wrote to that path
(digests of outputs are kept in the user's cache folder), or if the user says so with `--overwrite`. Inputs, raw and
preprocessed data and the folders of runs are never written to. Paths are compared by what they refer to on disk, so
that links, `..` and a file system that ignores case make no difference.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ppgs import cache
from ppgs.errors import BadInput, Problems

_FOLD = re.compile(r"fold_(\d+|all)")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """An input that must survive: a file, or a folder with everything in it; `what` names it in messages."""

    path: Path
    what: str


def check_outputs(
    targets: Sequence[Path],
    keep: Iterable[Kept] = (),
    *,
    overwrite: bool = False,
    own: Collection[Path] = (),
    remedy: str = "give another name",
) -> None:
    """Raise `BadInput` with every target that must not be written; `overwrite` permits to replace existing files.

    `own` are targets that are known to be ppgs's by their content. Call it before anything is computed or written.
    """
    problems = Problems()
    kept = {identity: one for one in keep if (identity := _identity(one.path)) is not None}
    known = _known()
    for target in targets:
        around = {identity for place in _places(target) if (identity := _identity(place)) is not None}
        hit = next((kept[identity] for identity in around if identity in kept), None)
        if hit is not None:
            problems.add(f"the output would replace or lie in {hit.what}", target, remedy)
        elif (data := data_around(target)) is not None:
            problems.add(f"the output would lie in {data}", target, "give a path outside of it")
        elif target.is_dir():
            problems.add("the output is a folder", target, "give a file")
        elif os.path.lexists(target) and not overwrite and target not in own and not _is_own(target, known):
            problems.add("the file exists, and it is not what ppgs last wrote there", target, remedy)
    problems.raise_as(BadInput, f"{len(problems.found)} outputs cannot be written; nothing was changed")


def check_names(targets: Iterable[Path], *, remedy: str = "rename one of the inputs") -> None:
    """Raise `BadInput` naming outputs that would be one file, also where the file system ignores case."""
    problems = Problems()
    taken: dict[tuple[str, ...], Path] = {}
    folders: dict[Path, tuple[str, bool]] = {}
    for target in targets:
        folder = target.absolute().parent
        if folder not in folders:
            # Path.resolve raises where links lead in a circle.
            folders[folder] = os.path.realpath(folder), ignores_case(folder)
        real, folded = folders[folder]
        names = (real, target.name)
        # Equal for two paths that the file system treats as one.
        key = tuple(unicodedata.normalize("NFC", name).casefold() for name in names) if folded else names
        if (other := taken.setdefault(key, target)) is not target:
            problems.add(f"two outputs would be one file: {other.name} and {target.name}", target, remedy)
    problems.raise_as(BadInput, f"{len(problems.found)} outputs would have another one's name")


def remember(*paths: Path) -> None:
    """Record files that were just written, so that they may be replaced later; without a cache folder, do nothing."""
    with suppress(OSError):
        record = _record()
        record.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{_digest(path)}\n" for path in paths)
        handle = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


def is_own(path: Path) -> bool:
    """Return whether the file at `path` is what ppgs last wrote there."""
    return _is_own(path, _known())


def is_older(file: Path, other: Path) -> bool:
    """Return whether `file` is missing or was written before `other`, which it is made from."""
    return not file.is_file() or file.stat().st_mtime_ns < other.stat().st_mtime_ns


def same_place(a: Path, b: Path) -> bool:
    """Return whether two paths refer to one existing file or folder."""
    identity = _identity(a)
    return identity is not None and identity == _identity(b)


def shared_place(paths: Iterable[Path], others: Iterable[Path]) -> Path | None:
    """Return the first of the paths that refers to the same existing file or folder as one of the others."""
    taken = {identity for other in others if (identity := _identity(other)) is not None}
    return next((path for path in paths if _identity(path) in taken), None)


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether `path`, which need not exist, is the existing `folder` or is inside it."""
    identity = _identity(folder)
    return identity is not None and any(_identity(place) == identity for place in _places(path))


def _record() -> Path:
    return cache.folder() / "outputs"


def _known() -> frozenset[str]:
    try:
        return frozenset(_record().read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return frozenset()


def _is_own(path: Path, known: frozenset[str]) -> bool:
    try:
        return bool(known) and path.is_file() and _digest(path) in known
    except OSError:
        return False


def _digest(path: Path) -> str:
    made = hashlib.blake2b(os.fsencode(path.resolve()) + b"\0", digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _places(path: Path) -> list[Path]:
    """Return the path and all folders around it, of a link itself and of its target."""
    try:
        resolved = path.resolve()
        beside = path.absolute().parent.resolve()
    except (OSError, RuntimeError):
        return [path]
    return list(dict.fromkeys([resolved, *resolved.parents, beside, *beside.parents]))


def data_around(target: Path) -> str | None:
    """Return which raw dataset, preprocessed dataset or run the target would be in, by the folders' content."""
    for folder in _places(target):
        if (folder / "dataset.json").is_file():
            has_cases = (folder / "imagesTr").is_dir() or (folder / "labelsTr").is_dir()
            # `predict --save-probabilities` writes both files; its images may have come from folders of such names.
            if has_cases and not (folder / "plans.json").is_file():
                return f"the raw dataset {folder}"
            if (folder / "gt_segmentations").is_dir():
                return f"the preprocessed dataset {folder}"
        if _FOLD.fullmatch(folder.name) and ((folder / "ppgs").is_dir() or any(folder.glob("checkpoint_*.pth"))):
            return f"the run's folder {folder}"
    return None


def ignores_case(folder: Path) -> bool:
    """Return whether names that differ only in case are one file in `folder`, which need not exist yet."""
    for place in (folder, *folder.parents):
        if place.exists():
            with suppress(OSError):
                for entry in (*place.iterdir(), place):
                    other = entry.with_name(entry.name.swapcase()) if entry.name else entry
                    if other != entry:
                        return same_place(entry, other)
    return False
