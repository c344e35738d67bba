"""Separate file systems for tests, and their faults."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

LOOP = ("mount", "-o", "loop,errors=remount-ro")


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tmpfs with these options; skips the test where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def become_read_only(folder: Path) -> None:
    """Make a file system read-only as ext4 does after a disk error; open files cannot be written either."""
    source = subprocess.run(["findmnt", "-no", "SOURCE", str(folder)], capture_output=True, text=True, check=True)
    Path("/sys/fs/ext4", Path(source.stdout.strip()).name, "trigger_fs_error").write_text("1")


def repaired(folder: Path) -> None:
    """Check and mount the file system of `failing_disk` again. No process may use it."""
    image = folder.with_name("image")
    subprocess.run(["umount", str(folder)], check=True)
    assert subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True).returncode < 4
    subprocess.run([*LOOP, str(image), str(folder)], check=True)
