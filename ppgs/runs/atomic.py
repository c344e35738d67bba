"""Atomic file writes: files are complete or absent after a kill or a power cut."""

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
    """Return an unused hidden name beside `path`: leftovers of a kill are not mistaken for data or a dataset."""
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
    """Write text with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk, if the platform lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_files(*files: Path) -> None:
    """Force other code's files to disk; raises OSError if that fails, as it may, late, on network folders."""
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
    """Yield temporary files and folders that a kill left in a folder."""
    yield from filter(is_leftover, folder.glob(f"*{_MARK}*"))


def remove_leftovers(*folders: Path) -> None:
    """Delete leftovers of a kill; only for folders whose lock is held."""
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
    """Yield a folder beside `path`; delete it, and leftovers of a kill, at the end. Hold the lock of `path`."""
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
    """Yield a `temporary_folder` that replaces the absent `path` if the block ends without an error."""
    with temporary_folder(path) as temporary:
        yield temporary
        sync_files(*(p for p in temporary.rglob("*") if p.is_file()))
        temporary.replace(path)
    sync_folder(path.parent)
