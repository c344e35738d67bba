"""Unpacking of untrusted archives: only into one folder, and atomically."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ppgs.errors import DatasetError, DiskFull
from ppgs.runs.atomic import staged_folder
from ppgs.runs.disk_space import require_room


def unpack(archive: Path, folder: Path, report: Callable[[str, int, int], None]) -> None:
    """Unpack the files of a tar archive that lie in its folder `folder.name` as the absent `folder`.

    Raises `DatasetError` for an archive that is damaged or contains anything else: other folders, links, devices;
    `DiskFull` if there is no room. Nothing is left behind then.
    """
    try:
        with tarfile.open(archive) as tar:
            files = _checked(tar, folder.name, archive)
            total = sum(member.size for member, _ in files)
            require_room(folder.parent, total, "unpacking", "make room")
            with staged_folder(folder) as staged:
                done = 0
                for member, place in files:
                    target = staged.joinpath(*place.parts[1:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source = tar.extractfile(member)
                    assert source is not None
                    with source, target.open("xb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    done += member.size
                    report("unpacking", done, total)
    except (tarfile.TarError, EOFError) as problem:
        raise DatasetError(f"the archive is damaged: {problem}", archive, "remove it and download again") from None
    except OSError as problem:
        raise DiskFull.of(problem, folder) or DatasetError(f"cannot be unpacked: {problem}", folder) from None


def _checked(tar: tarfile.TarFile, name: str, archive: Path) -> list[tuple[tarfile.TarInfo, PurePosixPath]]:
    """Return the archive's files and their targets after checking them."""
    files = []
    for member in tar:
        place = PurePosixPath(member.name)
        # What a Mac adds to archives.
        if any(part.startswith(("._", ".DS_Store")) for part in place.parts):
            continue
        inside = place.parts[:1] == (name,) and ".." not in place.parts
        if not inside or not (member.isfile() or member.isdir()):
            kind = "a link or device" if inside else f"outside of {name}"
            raise DatasetError(f"the archive contains '{member.name}', {kind}", archive, "get it from another mirror")
        if member.isfile():
            files.append((member, place))
    return files
