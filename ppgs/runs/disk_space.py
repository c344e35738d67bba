"""Checks that a disk has room and works, even if a library hides the system's error."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppgs.errors import DiskFull, StorageFailed
from ppgs.formatting import size

# More than writers leave free when a part of what they write no longer fits.
_PROBE_BYTES = 16 << 20
# Only file systems say these; others, such as a permission that is gone with a ticket, are looked into.
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)
# A folder that was moved or removed.
_GONE = (errno.ENOENT, errno.ENOTDIR)


def full_disk(error: BaseException | None, where: Path) -> DiskFull | None:
    """Return the `DiskFull` behind an error or its causes, else None."""
    while error is not None:
        if isinstance(error, DiskFull):
            return error
        if isinstance(error, OSError) and (full := DiskFull.of(error, where)) is not None:
            return full
        error = error.__cause__ or error.__context__
    return None


def probe(folder: Path) -> None:
    """Raise the system's error if a few megabytes cannot be written into a folder; quotas count too."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def storage_failure(error: BaseException, folder: Path, file: Path | None = None) -> DiskFull | StorageFailed | None:
    """Return the fault of the file system of `folder` if it made `file` or another one there fail; else None.

    `folder` is tried where the error does not tell.
    """
    if (full := full_disk(error, file or folder)) is not None:
        return full
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageFailed):
            return cause
        if isinstance(cause, OSError) and cause.errno in _BROKEN:
            return StorageFailed.of(cause, file or folder)
        cause = cause.__cause__ or cause.__context__
    return failing_storage(folder) if isinstance(error, (OSError, RuntimeError)) else None


def failing_storage(folder: Path) -> DiskFull | StorageFailed | None:
    """Return why an existing folder cannot be written to; None if it can."""
    try:
        probe(folder)
    except OSError as problem:
        if problem.errno not in _GONE:
            return DiskFull.of(problem, folder) or StorageFailed.of(problem, folder)
    return None


@contextmanager
def telling_full_disk(folder: Path, remedy: str) -> Iterator[None]:
    """Raise `DiskFull` for any error in the block if the folder's disk is full, while partial files still exist.

    Blosc2 and ITK say only that writing failed.
    """
    try:
        yield
    except Exception as error:
        full = full_disk(error, folder)
        if full is None and isinstance(error, RuntimeError):
            try:
                probe(folder)
            except OSError as problem:
                full = full_disk(problem, folder)
        if full is None:
            raise
        raise full.with_remedy(remedy) from error


def require_room(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Raise `DiskFull` if `folder` has less room than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(f"{what} needs {size(needed)}, {size(free)} are free", folder, remedy)
