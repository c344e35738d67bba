"""The one iterator of a run: measures how long the training waits for it, and notices dead or hung workers."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader

from ppgs.errors import LoaderFailed, PpgsError, from_record

# Seconds without a batch after which a loader process counts as hanging; a large batch on a slow disk takes minutes.
LOADER_TIMEOUT = 900.0
# Seconds after which PyTorch's own shutdown of its workers counts as hanging.
_SHUTDOWN_TIMEOUT = 10.0


class Batches:
    """Iterates once over the batches of `loader`, which yields several at a time; `stop(error)` saves and raises.

    PyTorch reports the death of a worker by raising in whatever the training process does at that instant, be it half
    an optimiser step. Here it is reported when the next batch is requested, where the state can be saved.
    """

    def __init__(self, loader: DataLoader[Any], timeout: float, stop: Callable[[PpgsError], NoReturn]) -> None:
        self._stop, self._timeout = stop, timeout
        self._waiting = self._child_ended = False
        self._has_workers = loader.num_workers > 0
        self._iterator: Any = iter(loader)
        self._made: deque[dict[str, Any]] = deque()
        self._told: Any = None
        self._alarmed: Any = None
        if self._has_workers and threading.current_thread() is threading.main_thread():
            self._told = signal.getsignal(signal.SIGCHLD)
            signal.signal(signal.SIGCHLD, self._on_child)
            self._alarmed = signal.signal(signal.SIGALRM, self._on_timeout)
        self.waited = 0.0

    def close(self) -> None:
        """End the workers, if there are any; the iterator cannot be used afterwards."""
        if self._has_workers:
            _end_workers(self._iterator)
            self._has_workers = False
        self._iterator, self._made = iter(()), deque()
        if self._told is not None:
            signal.signal(signal.SIGCHLD, self._told)
            signal.signal(signal.SIGALRM, self._alarmed)
            self._told = None

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        self._child_ended = True
        if self._waiting and callable(self._told):
            self._told(number, frame)

    def _on_timeout(self, *_: object) -> None:
        # DataLoader's own timeout does not cover fetching a batch's memory from a worker that hangs.
        if self._waiting:
            raise RuntimeError(f"DataLoader timed out after {self._timeout:g} seconds")

    def _watch(self, seconds: float) -> None:
        if self._told is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        while not self._made:
            self._fetch()
        batch = self._made.popleft()
        if "error" in batch:
            # Also where the case is damaged: other ranks must not wait for a part that never comes.
            self._stop(from_record(batch["error"]))
        return batch

    def _fetch(self) -> None:
        started = time.perf_counter()
        try:
            self._waiting = True
            if self._child_ended and callable(self._told):
                self._child_ended = False
                self._told(signal.SIGCHLD, None)
            self._watch(self._timeout)
            self._made.extend(next(self._iterator))
        except (RuntimeError, ConnectionError, EOFError) as error:
            self._waiting = False
            self._watch(0)
            self._give_up(error)
        finally:
            self._waiting = False
            self._watch(0)
        self.waited += time.perf_counter() - started

    def _give_up(self, error: Exception) -> NoReturn:
        text = str(error)
        if not is_workers_death(error):
            # What a worker raised: its own error, with the worker's traceback.
            raise error
        for child in multiprocessing.active_children():
            # A hung worker ignores SIGTERM, so use SIGKILL.
            child.kill()
        what = "a loader process hangs" if "timed out" in text else "a loader process was killed"
        remedy = (
            "'ppgs resume' continues (--loader-timeout waits longer); is the disk of nnUNet_preprocessed reachable?"
            if "timed out" in text
            else "'ppgs resume' continues; where memory is short, give it fewer --workers (see 'ppgs doctor')"
        )
        self._stop(LoaderFailed(f"{what}: {(text.splitlines() or ['no more data'])[0]}", "", remedy))


def _end_workers(iterator: Any) -> None:
    """End a loader's workers; by force if PyTorch's shutdown hangs.

    A worker that is killed while it writes a batch leaves the thread that pins memory waiting for the rest of it, and
    the shutdown waiting for that thread.
    """
    # Called here, since PyTorch waits until nothing refers to the iterator, as the traceback of its failure may.
    shutdown = threading.Thread(target=iterator._shutdown_workers, daemon=True)
    shutdown.start()
    shutdown.join(_SHUTDOWN_TIMEOUT)
    if not shutdown.is_alive():
        return
    # The process would wait at its exit for the thread that writes into this queue.
    iterator._worker_result_queue.cancel_join_thread()
    if iterator._worker_pids_set:
        # PyTorch would raise the workers' death wherever the next child process ends.
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    for worker in iterator._workers:
        worker.kill()


def is_workers_death(error: Exception) -> bool:
    """Return whether an error of the loader means that a worker is gone or hangs, not that it raised an error.

    A worker may die while a batch's memory is fetched from it: by this thread, or by the one that pins memory, which
    then ends itself or passes the broken connection on.
    """
    text = str(error)
    if isinstance(error, RuntimeError):
        return text.startswith(("DataLoader", "Pin memory thread"))
    return "Caught" not in text or "in pin memory thread" in text
