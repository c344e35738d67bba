"""Choice of the folder for temporary files: workers hand data over through sockets there, which not all take."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path

from ppgs.errors import BadInput

# Before `choose_temporary_folder` changes it.
_GIVEN = os.environ.get("TMPDIR", "")
_USUAL = ("/tmp", "/var/tmp")  # noqa: S108  (what Python's `tempfile` falls back to as well)
_ROOM = bytes(1 << 16)
# Of files alone: a sandbox denies the system call, or the file system has none.
NO_SOCKETS = "sockets are forbidden"
_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


def choose_temporary_folder(*, sockets: bool = False) -> None:
    """Point this process and those that it starts to a folder that can be used; raises `BadInput` without any.

    Python passes over folders that cannot be written, but not over those with a path too long for a socket or without
    room: there a loader's first batch is lost, and the training would wait for it. Where sockets are forbidden, a
    folder without them is used, unless they are needed (`sockets`): by the loader's workers alone.
    """
    refused: dict[Path, str] = {}
    chosen = None
    for name in filter(None, (*(os.environ.get(variable) for variable in ("TMPDIR", "TEMP", "TMP")), *_USUAL)):
        folder = Path(name).absolute()
        if (why := refusal(folder)) is None:
            chosen = folder
            break
        refused[folder] = why
    without_sockets = next((folder for folder, why in refused.items() if why == NO_SOCKETS), None)
    chosen = chosen or (None if sockets else without_sockets)
    if chosen is not None:
        tempfile.tempdir = str(chosen)
        if chosen != next(iter(refused), chosen):
            os.environ["TMPDIR"] = str(chosen)
        return
    told = "; ".join(f"{folder} ({why})" for folder, why in refused.items())
    if without_sockets is not None:
        raise BadInput(
            f"this system or sandbox forbids the sockets that data-loader workers need: {told}",
            "--workers",
            "train with --workers 0, or outside the sandbox",
        )
    raise BadInput(
        f"no folder for temporary files can be used: {told}",
        "TMPDIR",
        "set TMPDIR to a folder with room and a short path",
    )


def refused_folder() -> tuple[str, str] | None:
    """Return the folder that TMPDIR named when ppgs was started, and why it cannot be used; None where it can."""
    return (_GIVEN, why) if _GIVEN and (why := refusal(Path(_GIVEN).absolute())) is not None else None


def refusal(folder: Path) -> str | None:
    """Return why temporary files and sockets cannot be made in a folder; None where they can."""
    try:
        with tempfile.TemporaryDirectory(prefix="ppgs-", dir=folder) as place:
            Path(place, "file").write_bytes(_ROOM)
            if hasattr(socket, "AF_UNIX"):
                try:
                    with socket.socket(socket.AF_UNIX) as made:
                        # As long as the names that `multiprocessing` gives them.
                        made.bind(str(Path(place, "listener-12345678")))
                except OSError as problem:
                    if problem.errno in _FORBIDDEN:
                        return NO_SOCKETS
                    raise
    except OSError as problem:
        return problem.strerror.lower() if problem.strerror else "its path is too long for sockets"
    return None
