"""Files that are whole or absent after a kill or a power cut at any instant."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_MARK = ".part-"
# Process and random digits: a user's own `scan.part-1.zip` is none of ours.
_LEFTOVER = re.compile(re.escape(_MARK) + r"\d+-[0-9a-f]{8}$")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, then put it in place of `path`.

    What was at `path` stays until the new content is whole; on any error it stays for good and nothing is left over.
    """
    temporary = path.with_name(f"{path.name}{_MARK}{os.getpid()}-{secrets.token_hex(4)}")
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


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files that a kill left in a folder."""
    yield from (path for path in folder.glob(f"*{_MARK}*") if _LEFTOVER.search(path.name))


def remove_leftovers(*folders: Path) -> None:
    """Delete what a kill left; only for folders whose lock is held."""
    for folder in folders:
        for file in leftovers(folder):
            with suppress(OSError):
                file.unlink()


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of the absent `path` when the block ends without an error."""
    import shutil

    temporary = path.with_name(f"{path.name}{_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_files(*(p for p in temporary.rglob("*") if p.is_file()))
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)
