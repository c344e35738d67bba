"""Signals across a fork: a forked child starts with default handlers, and no signal that is sent to it is lost.

A child inherits Python's handlers, but Python forgets in it what arrived before its own start there, and a handler that
raises may do so within a lock or unwind the parent's frames. Either way the child outlives the SIGTERM that its parent
ends it with, and the parent waits for it without end. Within `guarded_forks` signals are therefore blocked while a
process forks; the child puts the defaults back and only then lets in what has arrived.

Processes that are started by exec (subprocess, spawned workers) need no guard: exec resets handlers to the defaults,
and Python starts them by vfork with all signals blocked until it has reset them. They do inherit ignored and blocked
signals; `accept` and `ppgs.processes.worker.quiet_worker` undo what would keep a process from being stopped.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _STOPPING if hasattr(signal, name))
_AGAIN_SECONDS = 0.05

_guards: set[object] = set()


# Masks belong to threads, and any thread may fork: a pool's own thread replaces workers.
class _Forking(threading.local):
    # The mask before; None while this thread is not forking.
    mask: set[int] | None = None


_forking = _Forking()


@contextmanager
def guarded_forks() -> Iterator[None]:
    """Let all processes that any thread forks within the block start with default handlers."""
    guard = object()
    _guards.add(guard)
    try:
        yield
    finally:
        _guards.discard(guard)


def heard() -> list[signal.Signals]:
    """Return the stop signals that this process is to hear: under nohup a hang-up stays ignored."""
    return [n for n in STOP_SIGNALS if not (n.name == "SIGHUP" and signal.getsignal(n) == signal.SIG_IGN)]


def accept() -> None:
    """Unblock the stop signals, which the process that started this one may have blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def postponed(number: int, frame: FrameType | None) -> bool:
    """Return whether a handler was called amid a fork or the start of a thread, which swallow what it raises.

    The signal is then sent again a moment later, and the handler should do nothing now.
    """
    while frame is not None and frame.f_code not in _DEAF:
        frame = frame.f_back
    if frame is None and _forking.mask is None:
        return False
    timer = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
    return True


def interrupt_on_request() -> None:
    """From now on SIGTERM raises `KeyboardInterrupt` as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not postponed(number, frame):
        raise KeyboardInterrupt


def _handled() -> set[int]:
    """Return signals with a Python handler: stop signals, the loader's SIGCHLD and SIGALRM, ..."""
    return {number for number in signal.valid_signals() if callable(signal.getsignal(number))}


def _before() -> None:
    if _guards:
        # Read first: a handler that raises here must not leave the signals blocked.
        _forking.mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        signal.pthread_sigmask(signal.SIG_BLOCK, _handled().union(STOP_SIGNALS))


def _in_parent() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)
        _forking.mask = None


def _in_child() -> None:
    if _forking.mask is None:
        return
    handled = _handled()
    # It belongs to the parent's event loop.
    signal.set_wakeup_fd(-1)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask.difference(handled, STOP_SIGNALS))
    _forking.mask = None


# `Thread.start` may turn an exception into a `KeyError`.
_DEAF = frozenset(function.__code__ for function in (_before, _in_parent, threading.Thread.start))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
