"""Forked children have default handlers, and a signal that comes before they have started ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ppgs.processes.signals import STOP_SIGNALS, guarded_forks
from ppgs.processes.stop import Stop
from ppgs.runs.lock import Lock

# Hooks of a fork's child run in the order of their registration: this one runs before ppgs is imported, and so sends
# its signal before the child has come to any code of ours.
_IN_THE_WINDOW = """
import os, signal, sys, threading
sent = getattr(signal, sys.argv[2])
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), sent))
from contextlib import nullcontext
from ppgs.processes.signals import guarded_forks
from ppgs.processes.stop import Stop
import time

def fork():
    child = os.fork()
    if child == 0:
        time.sleep(2)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

def stop(*_):
    raise InterruptedError

if sys.argv[1] == "guarded":
    Stop(print).install()
else:
    signal.signal(sent, stop)
with guarded_forks() if sys.argv[1] == "guarded" else nullcontext():
    fork()
    # As a pool does that replaces a worker from its own thread.
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
"""


def done_by(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program; from Python 3.12 on a fork beside threads is warned of."""
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def forking(*arguments: str) -> subprocess.CompletedProcess[str]:
    return done_by(_IN_THE_WINDOW, *arguments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_before_the_childs_start_ends_it(number: signal.Signals) -> None:
    done = forking("guarded", number.name)
    assert done.stdout.split() == [str(-number)] * 2
    assert done.stderr == ""


@pytest.mark.slow
def test_without_the_guard_the_signal_is_lost() -> None:
    """The reason for the guard: if this fails, Python has changed."""
    done = forking("unguarded", "SIGTERM")
    assert set(done.stdout.split()) == {"0"}


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        if callable(handler) or signal.getsignal(number) != handler:
            signal.signal(number, handler)


def in_child(report: Callable[[], object]) -> str:
    """Return the state in a forked child."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, repr(report()).encode())
        os._exit(0)
    os.close(writable)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(readable) as file:
        return file.read()


def standing() -> tuple[list[int], list[int], int]:
    """Handled signals, blocked signals, and the descriptor of an event loop."""
    handled = [int(n) for n in sorted(signal.valid_signals()) if callable(signal.getsignal(n))]
    return handled, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), signal.set_wakeup_fd(-1)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("threaded", [False, True])
def test_a_forked_child_has_default_handlers_and_nothing_blocked(threaded: bool) -> None:
    Stop(print).install()
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, lambda *_: None)
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    found = []

    def fork() -> None:
        # As in a thread of a library that blocks all: its children are to be ended all the same.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        found.append(in_child(lambda: (standing(), in_child(standing))))
        assert set(STOP_SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())

    try:
        with guarded_forks():
            if threaded:
                thread = threading.Thread(target=fork)
                thread.start()
                thread.join()
            else:
                fork()
        inherited = in_child(standing)
    finally:
        signal.set_wakeup_fd(-1)
        os.close(readable)
        os.close(writable)
    assert found == [repr((([], [], -1), repr(([], [], -1))))]
    # Outside the block nothing is done to other people's children.
    assert str(int(signal.SIGALRM)) in inherited


@pytest.mark.usefixtures("handlers")
def test_an_ignored_signal_stays_ignored_in_a_child() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Stop(print).install()
    with guarded_forks():
        assert in_child(lambda: signal.getsignal(signal.SIGHUP) == signal.SIG_IGN) == "True"


_TO_THE_PARENT = """
import os, signal, threading, time
# Runs after the guard's own hook, as hooks before a fork run in the reverse order.
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))
from ppgs.errors import StoppedEarly
from ppgs.processes.signals import guarded_forks
from ppgs.processes.stop import Stop

Stop(print).install()
if {others}:
    # Such as numerical libraries': a signal to the process may reach them, and Python's handler then runs in the hook.
    threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
with guarded_forks():
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        time.sleep(30)
    except StoppedEarly as stop:
        print(stop)
"""


@pytest.mark.parametrize("others", [False, True])
def test_a_signal_to_the_parent_while_it_forks_is_heard_after_the_fork(others: bool) -> None:
    program = _TO_THE_PARENT.format(others=others)
    done = done_by(program)
    assert (done.stdout, done.stderr) == ("stopped on request (SIGTERM)\n", "")


_AS_A_THREAD_STARTS = """
import os, signal, threading, time
from ppgs.errors import StoppedEarly
from ppgs.processes.signals import interrupt_on_request
from ppgs.processes.stop import Stop

# Programs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
start = getattr(threading, name)

def start_and_signal(*arguments, **named):
    setattr(threading, name, start)
    start(*arguments, **named)
    # The new thread has taken itself out of Python's books, where a failed start would look for it.
    time.sleep(0.5)
    os.kill(os.getpid(), signal.{number})

{install}
setattr(threading, name, start_and_signal)
try:
    threading.Thread(target=int).start()
    time.sleep(30)
except {error} as stop:
    print("stopped", stop)
"""


@pytest.mark.parametrize(
    ("install", "number", "error"),
    [
        ("Stop(print).install()", "SIGUSR2", "StoppedEarly"),
        ("interrupt_on_request()", "SIGTERM", "KeyboardInterrupt"),
        ("interrupt_on_request()", "SIGINT", "KeyboardInterrupt"),
    ],
)
def test_a_signal_while_a_thread_starts_is_heard_after_it(install: str, number: str, error: str) -> None:
    program = _AS_A_THREAD_STARTS.format(install=install, number=number, error=error)
    done = done_by(program)
    reason = f" stopped on request ({number})" if error == "StoppedEarly" else " "
    assert (done.stdout, done.stderr) == (f"stopped{reason}\n", "")


@pytest.mark.usefixtures("handlers")
def test_blocked_signals_that_were_inherited_are_accepted() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    Stop(print).install()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()).intersection(STOP_SIGNALS)


@pytest.mark.usefixtures("handlers")
def test_a_request_to_stop_does_nothing_in_another_process() -> None:
    forced: list[str] = []
    stop = Stop(forced.append)
    stop.install()

    def child() -> tuple[list[str], str | None]:
        stop._give_up("stopped")
        return forced, stop.reason

    assert in_child(child) == "([], None)"
    child_of_a_fork = os.fork()
    if child_of_a_fork == 0:
        # Forked without the guard, by code that knows nothing of it.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child_of_a_fork, 0)[1]) == -signal.SIGTERM


def test_a_forked_child_cannot_remove_its_parents_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock") as lock:
        assert in_child(lambda: lock.__exit__(None, None, None)) == "None"
        assert (tmp_path / "lock").is_file()
    assert not (tmp_path / "lock").exists()
