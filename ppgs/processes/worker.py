"""Set-up of a worker process, so that it never outlives its parent or keeps it waiting."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

from ppgs.errors import BadInput
from ppgs.processes.signals import STOP_SIGNALS, accept


def die_with_parent(expected_parent: int) -> None:
    """Have the kernel kill this process as soon as its parent is gone, so that a kill leaves no orphan (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != expected_parent:
        os._exit(1)


def quiet_worker(parent: int) -> None:
    """Leave requests to stop to the parent, and end with it: by SIGTERM at any time, and when the parent dies.

    A Ctrl-C or a job's signal reaches all processes of a group; the parent decides what becomes of the workers.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    accept()
    die_with_parent(parent)


def refuse_unguarded_main() -> None:
    """Raise `BadInput` in a worker that is still being started.

    A spawned worker imports the program's main module first. Without a guard it would run the whole program again and
    wait for a lock of its parent, while the parent waits for it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise BadInput(
            "a worker process runs the whole program again",
            sys.argv[0],
            'put its calls under if __name__ == "__main__":',
        )
