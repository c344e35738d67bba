"""Files that are whole or absent after a kill or a power cut at any instant."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_MARK = ".part-"
# Process and random digits: a user's own `scan.part-1.zip` is none of ours.
_LEFTOVER = re.compile(re.escape(_MARK) + r"\d+-[0-9a-f]{8}$")


def temporary_name(path: Path) -> Path:
    """Return an unused name beside `path`: hidden, so that what a kill leaves is not mistaken for data or a dataset."""
    return path.with_name(f".{path.name.removeprefix('.')}{_MARK}{os.getpid()}-{secrets.token_hex(4)}")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, then put it in place of `path`.

    What was at `path` stays until the new content is whole; on any error it stays for good and nothing is left over.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk, where the platform lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_files(*files: Path) -> None:
    """Force to disk what other code wrote; raises OSError where that fails, as it does late on network folders."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_leftover(path: Path) -> bool:
    """Return whether a file or folder has the name of a temporary one."""
    return _LEFTOVER.search(path.name) is not None


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files and folders that a kill left in a folder."""
    yield from filter(is_leftover, folder.glob(f"*{_MARK}*"))


def remove_leftovers(*folders: Path) -> None:
    """Delete what a kill left; only for folders whose lock is held."""
    for folder in folders:
        for left in leftovers(folder):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is deleted in the end, as are those that a kill left; the lock of `path` is held."""
    for left in leftovers(path.parent):
        # Earlier versions did not hide them.
        if _LEFTOVER.sub("", left.name).removeprefix(".") == path.name:
            _remove(left)
    temporary = temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A `temporary_folder` that takes the place of the absent `path` when the block ends without an error."""
    with temporary_folder(path) as temporary:
        yield temporary
        sync_files(*(p for p in temporary.rglob("*") if p.is_file()))
        temporary.replace(path)
    sync_folder(path.parent)
