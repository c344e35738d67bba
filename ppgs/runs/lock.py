"""Locks that let one process at a time work on a run, also in folders that other machines mount.

The lock is a file made with O_EXCL (which NFS keeps atomic) that names its owner. It is stale when its process is
gone from this machine, when it came with a copy of the folder, or when another machine has not renewed it for
`STALE_SECONDS` by the file system's own clock, nor does so while it is watched: clocks jump.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ppgs.errors import PathUnusable, RunLocked

STALE_SECONDS = 600.0
RENEW_SECONDS = 60.0
# What is done alone takes milliseconds.
_ALONE_SECONDS = 10.0


@dataclass(frozen=True)
class Owner:
    """The owner of a lock: its start time distinguishes a process from a later one with the same number.

    `started` counts seconds since the machine's start where `machine` names that start and the process namespace, else
    it is a time of day. `path` is where the lock was made, `file` where it was read, which may be another mount.
    """

    pid: int
    host: str
    started: float
    machine: str = ""
    path: str = ""
    file: Path | None = field(default=None, compare=False, repr=False)

    @classmethod
    def this_process(cls, path: Path | None = None) -> Owner:
        pid, machine = os.getpid(), _machine()
        started = _seconds_after_boot(pid) if machine else psutil.Process().create_time()
        return cls(pid, socket.gethostname(), started, machine, "" if path is None else str(path.resolve()))

    @property
    def is_local(self) -> bool:
        """True if the process can be looked up here, unlike that of another machine or container of the same name."""
        boot, _, namespace = self.machine.partition(" ")
        here, _, mine = _machine().partition(" ")
        if self.host != socket.gethostname():
            return False
        # Older versions, and systems that do not say, name no start of the machine.
        if not boot or boot == here:
            return not boot or namespace == mine
        # This machine before it was started again, or another one, which has renewed the lock since.
        renewed = None if self.file is None else _renewal(self.file)
        return renewed is None or renewed < psutil.boot_time()

    @property
    def is_alive(self) -> bool:
        """True if the process still runs; only meaningful on its own machine."""
        try:
            process = psutil.Process(self.pid)
            if self.machine:
                same = self.machine == _machine() and _seconds_after_boot(self.pid) == self.started
            else:
                # Times of day are derived from the boot time, which a clock adjustment shifts.
                same = abs(process.create_time() - self.started) < 5
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False

    def left(self, path: Path) -> bool:
        """Return whether the lock at `path` came with a copy of the folder that the owner works in."""
        made_in, now_in = Path(self.path).parent, path.parent
        try:
            return bool(self.path) and made_in.is_dir() and not made_in.samefile(now_in)
        except PermissionError:
            # This lock can be read: it is not in a folder that may not be looked at.
            return True
        except OSError:
            # A folder that vanishes meanwhile, or a file server that does not answer, shows no copy.
            return False


def _machine() -> str:
    """Return an id of this machine's boot and its PID namespace; empty if the system gives neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _seconds_after_boot(pid: int) -> float:
    """Return when a process was started, by a clock that is never adjusted (Linux)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    return int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")


def owner_of(path: Path) -> Owner | None:
    """Return the owner in a lock file; None if there is no file or it is torn."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = {name: str(raw.get(name, "")) for name in ("machine", "path")}
        return Owner(int(raw["pid"]), str(raw["host"]), float(raw["started"]), **known, file=path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_held(path: Path) -> Owner | None:
    """Return the live owner of a lock, or None."""
    owner = owner_of(path)
    if owner is None:
        return None
    if owner.is_local:
        return owner if owner.is_alive and not owner.left(path) else None
    return owner if abs(_age(path)) < STALE_SECONDS else None


def _age(path: Path) -> float:
    """Return the seconds since the lock was renewed, by its file system's clock."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
        probe.unlink()
        return now - path.stat().st_mtime
    except OSError:
        return 0.0


def _renewal(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


_REMOVE = "remove what has this name if no process uses it"


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time in, on file systems with such locks; the system frees them when a process dies.

    Raises TimeoutError if one that is stopped has it, or a file server does not answer.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + _ALONE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{folder} stays locked") from None
                time.sleep(0.05)
            except OSError:
                break
        yield
    finally:
        os.close(handle)


class _Stuck(RunLocked):
    """A lock without an owner that cannot be taken, so that waiting does not help."""


class Lock:
    """Context manager for a lock file; raises `RunLocked` if a live process holds it."""

    def __init__(self, path: Path, what: str = "the run") -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = Owner.this_process(self._path)
        for attempt in range(60):
            if self._make():
                return self
            owner = owner_of(self._path)
            # Without hard links a lock is there for a moment before its owner is written.
            if owner is None and attempt < 30:
                time.sleep(0.1)
                continue
            if owner is not None and (is_held(self._path) or (not owner.is_local and self._is_renewed())):
                raise RunLocked(
                    f"{self._what} is held by process {owner.pid} on {owner.host}",
                    self._path.parent,
                    "wait for it, or stop that process first",
                )
            self._remove_stale(owner)
        raise _Stuck(f"{self._what} could not be locked", self._path, _REMOVE)

    def _make(self) -> bool:
        """Create the lock; return False if there is one."""
        content = json.dumps({name: value for name, value in vars(self._owner).items() if name != "file"}).encode()
        # Made whole under another name and then linked: no process can see a lock without its owner.
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        try:
            draft.write_bytes(content)
            return self._link(draft, content)
        finally:
            draft.unlink(missing_ok=True)

    def _link(self, draft: Path, content: bytes) -> bool:
        try:
            os.link(draft, self._path)
        except FileExistsError:
            # An answer of NFS that got lost and was asked for again says so of our own link.
            return draft.stat().st_nlink == 2
        except OSError:
            # A file system without hard links.
            try:
                handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            os.write(handle, content)
            os.close(handle)
        return True

    def _is_renewed(self) -> bool:
        """Return whether another machine's owner renews its lock, regardless of clocks."""
        seen, until = _renewal(self._path), time.monotonic() + 1.1 * RENEW_SECONDS
        while time.monotonic() < until:
            time.sleep(min(1.0, RENEW_SECONDS / 10))
            if _renewal(self._path) != seen:
                return True
        return False

    def _remove_stale(self, owner: Owner | None) -> None:
        # If two processes find it stale, one removes it; the other must not remove the next owner's.
        with suppress(OSError), _alone_in(self._path.parent):
            if owner_of(self._path) == owner:
                self._path.unlink()

    def renew(self) -> None:
        """Show other machines that the owner is alive; call at least every `RENEW_SECONDS`."""
        with suppress(OSError):
            os.utime(self._path)

    def __exit__(self, *_: object) -> None:
        # One that cannot be removed is stale when this process has ended.
        with suppress(OSError):
            # A forked child is not the owner, whatever it inherits.
            if os.getpid() == self._owner.pid and owner_of(self._path) == self._owner:
                self._path.unlink()


@contextmanager
def renewed(lock: Lock) -> Iterator[None]:
    """Renew a held lock from a thread as long as the block lasts."""
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
    """Take the lock as soon as no live process holds it; call `waiting` every second until then."""
    lock = Lock(path, what)
    while True:
        try:
            lock.__enter__()
            break
        except _Stuck as stuck:
            raise PathUnusable(str(stuck), path, _REMOVE) from None
        except RunLocked:
            waiting()
            time.sleep(1.0)
    try:
        with renewed(lock):
            yield
    finally:
        lock.__exit__(None, None, None)
