"""One process works on a run at a time, also on folders that other machines mount.

The lock is a file made with O_EXCL (which NFS keeps atomic) that says who holds it. It is stale when its process is
gone from this machine, or when another machine has not renewed it for `STALE_SECONDS` by the file system's own clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from ppgs.errors import RunLocked

STALE_SECONDS = 600.0
RENEW_SECONDS = 60.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process is told from a later one of the same number by its start."""

    pid: int
    host: str
    started: float

    @classmethod
    def this_process(cls) -> Owner:
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time())

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; only meaningful on its own machine."""
        try:
            process = psutil.Process(self.pid)
            # Start times are derived from the boot time, which a clock adjustment shifts.
            same = abs(process.create_time() - self.started) < 5
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def owner_of(path: Path) -> Owner | None:
    """Who is written in a lock file; None where there is none or it is torn."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Owner(int(raw["pid"]), str(raw["host"]), float(raw["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_held(path: Path) -> Owner | None:
    """The live owner of a lock, or None."""
    owner = owner_of(path)
    if owner is None:
        return None
    if owner.is_local:
        return owner if owner.is_alive else None
    return owner if _age(path) < STALE_SECONDS else None


def _age(path: Path) -> float:
    """Seconds since the lock was renewed, by the clock of the file system that holds it."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
        probe.unlink()
        return now - path.stat().st_mtime
    except OSError:
        return 0.0


class Lock:
    """Context manager that holds a lock file; raises `RunLocked` when a live process has it."""

    def __init__(self, path: Path, what: str = "the run") -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(vars(Owner.this_process())).encode()
        for _ in range(10):
            # Made whole under another name and then linked: nobody can see a lock without its owner.
            draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
            draft.write_bytes(content)
            try:
                os.link(draft, self._path)
                return self
            except FileExistsError:
                owner = is_held(self._path)
                if owner is not None:
                    raise RunLocked(
                        f"{self._what} is held by process {owner.pid} on {owner.host}",
                        self._path.parent,
                        "wait for it, or stop that process first",
                    ) from None
                self._remove_stale()
            except OSError:
                # A file system without hard links.
                with suppress(FileExistsError):
                    handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    os.write(handle, content)
                    os.close(handle)
                    return self
            finally:
                draft.unlink(missing_ok=True)
        raise RunLocked(f"{self._what} could not be locked", self._path)

    def _remove_stale(self) -> None:
        # Renamed first, so that of two processes that find it stale only one removes it.
        grave = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        with suppress(OSError):
            self._path.rename(grave)
            grave.unlink()

    def renew(self) -> None:
        """Tell other machines that the owner lives; call at least every `RENEW_SECONDS`."""
        with suppress(OSError):
            os.utime(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if owner_of(self._path) == Owner.this_process():
            self._path.unlink(missing_ok=True)


@contextmanager
def renewed(lock: Lock) -> Iterator[None]:
    """Renew a lock that is held from a thread, as long as the block lasts."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            lock.renew()

    threading.Thread(target=renew, daemon=True, name="lock").start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def turn(path: Path, what: str, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock as soon as no live process does; `waiting` is called every second until then."""
    lock = Lock(path, what)
    while True:
        try:
            lock.__enter__()
            break
        except RunLocked:
            waiting()
            time.sleep(1.0)
    try:
        with renewed(lock):
            yield
    finally:
        lock.__exit__(None, None, None)
