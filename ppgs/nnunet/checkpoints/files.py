"""Checkpoint files: written atomically in the background, and read without executing their content."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ppgs import upstream
from ppgs.errors import (
    DamagedRun,
    DoesNotFit,
    NoCheckpoint,
    PathUnusable,
    PpgsError,
    RunError,
    StoppedEarly,
    StorageFailed,
)
from ppgs.formatting import first_line
from ppgs.nnunet.checkpoints.content import FORMAT, content_digest
from ppgs.runs.atomic import temporary_name, write_atomically
from ppgs.runs.disk_space import require_room, storage_failure
from ppgs.runs.folder import RunFolder

# No disk takes this long for a checkpoint; an unresponsive file server would block forever.
_LONGEST_WRITE_SECONDS = 1800.0
# Numbers in the log of stock nnU-Net's checkpoints; making one runs no code of the file.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")},
]


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time, each complete before it replaces the previous one."""

    def __init__(self, written: Callable[[dict[str, Any]], object]) -> None:
        self._written = written
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._started, self._took = 0.0, 0.0

    def submit(
        self, content: dict[str, Any], path: Path, *links: Path, first: tuple[dict[str, Any], Path] | None = None
    ) -> None:
        """Write `content`, which must not change any more, to `path`, and link it as `links` too.

        An older content and its path may be given as `first`: that file is complete before the other is written.
        """
        self.wait()
        files = [(content, path, links)] if first is None else [(*first, ()), (content, path, links)]
        self._thread = threading.Thread(target=self._write_all, args=(files,), name="checkpoint", daemon=True)
        self._path, self._started = path, time.perf_counter()
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds that writing took last time, or has taken so far; 0 before the first time."""
        if self._thread is not None and self._thread.is_alive():
            return time.perf_counter() - self._started
        return self._took

    def failure(self) -> StoppedEarly | None:
        """Return the storage error of the last checkpoint, once, as soon as it is known."""
        error = self._error
        if not isinstance(error, StoppedEarly):
            return None
        self._error = None
        return error

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk; raises the error that prevented it."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.join(_LONGEST_WRITE_SECONDS)
            if thread.is_alive():
                raise StorageFailed(
                    f"writing a checkpoint has not ended after {_LONGEST_WRITE_SECONDS / 60:g} minutes",
                    self._path,
                    "look whether the file system answers, then 'ppgs resume' continues from the checkpoint before",
                )
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_all(self, files: list[tuple[dict[str, Any], Path, tuple[Path, ...]]]) -> None:
        for content, path, links in files:
            self._write(content, path, links)
            if self._error is not None:
                break
        self._took = time.perf_counter() - self._started

    def _write(self, content: dict[str, Any], path: Path, links: tuple[Path, ...]) -> None:
        started = time.perf_counter()
        try:
            sealed = {**content, "ppgs": {**content["ppgs"], "digest": content_digest(content)}}
            _check_room(path, sealed)
            write_atomically(path, lambda file: torch.save(sealed, file))
            for link in links:
                _link(path, link)
            self._written(
                {
                    "file": path.name,
                    "epoch": content["current_epoch"],
                    "iteration": content["ppgs"]["iteration"],
                    "seconds": time.perf_counter() - started,
                    "bytes": path.stat().st_size,
                }
            )
        except BaseException as error:
            self._error = storage_failure(error, path.parent, path) or error


def require_room_for_checkpoints(run: RunFolder, network: torch.nn.Module) -> None:
    """Raise `DiskFull` before training if the disk has no room for a run's checkpoints at their full size."""
    # Weights and momentum: latest, best and the one being written.
    one = _stored(network.state_dict().values()) + _stored(network.parameters())
    names = (run.checkpoint_latest, run.checkpoint_best, run.checkpoint_final)
    there = {path.stat().st_ino for path in names if path.is_file()}
    missing = 0 if run.checkpoint_final.is_file() else max(1, 3 - len(there))
    require_room(run.path, missing * one, "the training's checkpoints", "make room, then run 'ppgs resume'")


def _check_room(path: Path, content: dict[str, Any]) -> None:
    """Raise the system's error of a full disk before writing, which PyTorch's writer hides."""
    needed = _stored(_tensors(content))
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _stored(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes that tensors take in a file, which stores a shared storage once."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _link(path: Path, link: Path) -> None:
    """Give a file, which is never changed in place, a second name; copy it on file systems without hard links."""
    temporary = temporary_name(link)
    try:
        os.link(path, temporary)
    except OSError:
        write_atomically(link, lambda file: file.write(path.read_bytes()))
        return
    temporary.replace(link)
    # Replacing one name of a file by another of the same file leaves both.
    temporary.unlink(missing_ok=True)


def load_safely(file: Path | IO[bytes]) -> Any:
    """Load a checkpoint of ppgs or nnU-Net on the CPU without executing any of it; raises whatever PyTorch raises."""
    with torch.serialization.safe_globals(_NUMBERS):
        return torch.load(file, map_location="cpu", weights_only=True)


def is_of_code(problem: BaseException) -> bool:
    """Return whether `load_safely` failed on a function or class that the file names, which PyTorch calls a global."""
    return "global" in str(problem).lower()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint on the CPU without executing any of it.

    Raises `NoCheckpoint`, `DamagedRun`, `RunError` for a file that may not be read, and for one that may be complete
    `StorageFailed` or, for lack of memory, `DoesNotFit`.
    """
    try:
        content = load_safely(path)
    except FileNotFoundError:
        raise NoCheckpoint("there is no checkpoint", path, "has the training finished its first epoch?") from None
    except PermissionError:
        raise RunError("permission denied", path, "ask for permission to read the checkpoint") from None
    except Exception as problem:  # torch raises many kinds for the many ways in which a file can be broken
        raise _unreadable(problem, path) from None
    if not isinstance(content, dict) or not content.keys() >= upstream.CHECKPOINT_KEYS:
        raise DamagedRun("this is no checkpoint of nnU-Net", path)
    _check_own(content, path)
    return content


def _unreadable(problem: Exception, path: Path) -> PpgsError:
    """Return the error for a checkpoint that PyTorch could not read."""
    code = problem.errno if isinstance(problem, OSError) else None
    # PyTorch reports memory that ran out on the CPU in a RuntimeError.
    if isinstance(problem, MemoryError) or code == errno.ENOMEM or "can't allocate memory" in str(problem):
        return DoesNotFit(
            "there is not enough memory to read the checkpoint",
            path,
            "the file may be complete: end other programs or ask for more memory, then run the same command again",
        )
    # A damaged file makes PyTorch seek to impossible places (EINVAL).
    if isinstance(problem, OSError) and code != errno.EINVAL and PathUnusable.of(problem) is None:
        return StorageFailed(
            f"the checkpoint cannot be read at the moment ({problem.strerror or problem})",
            path,
            "the file may be complete: mend the file system or mount it again (the system's log says more), "
            "then run the same command again",
        )
    if is_of_code(problem):
        remedy = "give a checkpoint as ppgs or nnU-Net writes it, or restore this one from a backup"
        return DamagedRun("the checkpoint holds code, which was not run, or is damaged", path, remedy)
    return DamagedRun(
        f"the checkpoint is damaged: {first_line(problem)[:160]}",
        path,
        "restore it from a backup; if checkpoint_best.pth is whole, copy it over to continue from there",
    )


def write_stock(path: Path, file: IO[bytes]) -> None:
    """Write a checkpoint as stock nnU-Net would: only its own keys, the same weights."""
    content = load_checkpoint(path)
    torch.save({key: content[key] for key in content if key in upstream.CHECKPOINT_KEYS}, file)


def _check_own(content: dict[str, Any], path: Path) -> None:
    """Check the format version of ppgs's part and the digest of the content."""
    own = content.get("ppgs")
    if own is None:
        return
    damaged = DamagedRun(
        "the checkpoint's content is not what was written", path, "its disk may be failing: restore a backup"
    )
    if not isinstance(own, dict) or not isinstance(own.get("format"), int):
        raise damaged
    if own["format"] > FORMAT:
        raise RunError(
            f"the checkpoint has format {own['format']}, this ppgs knows up to {FORMAT}", path, "use a newer ppgs"
        )
    if own["format"] >= 3:
        plain = {k: v for k, v in own.items() if k != "digest"}
        try:
            same = own.get("digest") == content_digest({**content, "ppgs": plain})
        except (RuntimeError, TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise damaged
