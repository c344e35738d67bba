"""A pool of worker processes that notices when one of them dies.

`multiprocessing.Pool` replaces a worker that was killed, but its task is lost, so whoever waits for the result
waits without end; if the worker held the queue's lock, so do the other workers and `terminate`. In `WorkerPool` every
worker has its own pipe and a thread of the parent that watches it: the death of a worker ends all tasks with a
`WorkerLost` that names the case. `watched_pools` puts it in the place of `multiprocessing.Pool`, for nnU-Net's code.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, is_dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from ppgs.errors import PpgsError, WorkerLost
from ppgs.formatting import exit_text
from ppgs.processes.signals import guarded_forks
from ppgs.processes.worker import quiet_worker, refuse_unguarded_main

# A killed worker ends immediately unless the kernel blocks it, such as on an unresponsive file server.
_LAST_SECONDS = 10.0
_SHORT_OF_MEMORY = (
    "if memory was short, close other programs or set nnUNet_def_n_proc=1 for fewer worker processes; "
    "then 'ppgs resume' or the same command continues"
)
_ENDED = "the messages above may say why; check this case's files, then 'ppgs resume' or the same command continues"
# SIGKILL, and as a shell or container reports it: what the system does when memory is short.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class _Task:
    """Calls of one function that a worker makes in sequence."""

    function: Callable[..., Any]
    calls: Sequence[_Call]
    futures: list[Future[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.futures = [Future() for _ in self.calls]

    def fail(self, error: BaseException) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(error)

    def case(self) -> str:
        """Return what the first unfinished call works on."""
        left = (call for call, future in zip(self.calls, self.futures, strict=True) if not future.done())
        arguments, named = next(left, ((), {}))
        return _name_in([*arguments, *named.values()]) or "an unnamed task"


def _name_in(values: Iterable[Any]) -> str | None:
    """Return the first file or named object among arguments."""
    for value in values:
        if isinstance(value, Path) or (isinstance(value, str) and os.sep in value):
            return Path(value).name
        if is_dataclass(value) and isinstance(name := getattr(value, "name", None), str):
            return name
        if isinstance(value, list | tuple) and (name := _name_in(value)) is not None:
            return name
    return None


class Results:
    """Pending results of `WorkerPool`, with the interface of `AsyncResult`."""

    def __init__(self, futures: Sequence[Future[Any]], *, single: bool = False) -> None:
        self._futures, self._single = futures, single

    def ready(self) -> bool:
        return all(future.done() for future in self._futures)

    def successful(self) -> bool:
        if not self.ready():
            raise ValueError("the results are not ready")
        return all(future.exception() is None for future in self._futures)

    def wait(self, timeout: float | None = None) -> None:
        wait_for(self._futures, timeout)

    def get(self, timeout: float | None = None) -> Any:
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        values = [future.result() for future in self._futures]
        return values[0] if self._single else values


class _Gone(Exception):
    """The worker's process has ended."""


@contextmanager
def _daemon_may_start() -> Iterator[None]:
    """Within the block, let a daemonic process start others, such as a task of Celery or Airflow.

    multiprocessing refuses that because they would outlive it; workers end with their parent (`_work`).
    """
    this = multiprocessing.current_process()
    before, this.daemon = this.daemon, False
    try:
        yield
    finally:
        this.daemon = before


class _Worker:
    """A process and this side of its pipe."""

    def __init__(self, context: Any, initializer: Callable[..., object] | None, initargs: Iterable[Any]) -> None:
        self.lost = False
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, os.getpid(), initializer, tuple(initargs))
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        with _daemon_may_start():
            self.process.start()
        theirs.close()

    def is_alive(self) -> bool:
        """Return False once the pool has noticed the worker's death; nnU-Net polls this while it waits."""
        return not self.lost

    def do(self, task: _Task) -> None:
        """Make the task's calls in the process; raises `_Gone` if it dies."""
        try:
            self._pipe.send((task.function, task.calls))
        except OSError:
            raise _Gone from None
        except Exception as unsendable:
            task.fail(unsendable)
            return
        while not all(future.done() for future in task.futures):
            whole, error, value = self._receive()
            if whole:
                task.fail(error)
                return
            future = next(future for future in task.futures if not future.done())
            if isinstance(error, MemoryError):
                future.set_exception(WorkerLost(f"there was no memory for {task.case()}", "", _SHORT_OF_MEMORY))
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

    def _receive(self) -> tuple[bool, Any, Any]:
        try:
            # Results sent before it died count.
            if self._pipe not in wait([self._pipe, self.process.sentinel]):
                raise EOFError
            answer: tuple[bool, Any, Any] = self._pipe.recv()
            return answer
        except (EOFError, OSError):
            raise _Gone from None
        except Exception as unreadable:
            return False, unreadable, None

    def dismiss(self) -> None:
        """Let the process end on its own."""
        with suppress(OSError):
            self._pipe.send(None)

    def kill(self) -> None:
        # Not SIGTERM, which a stopped or hung process ignores; workers have nothing to clean up.
        self.process.kill()

    def how_it_ended(self) -> tuple[str, str]:
        """Return what became of the process, and the remedy."""
        self.process.join(_LAST_SECONDS)
        code = self.process.exitcode
        remedy = _SHORT_OF_MEMORY if code in _KILLED else _ENDED
        if code is None:
            return "does not answer", remedy
        return exit_text(code, named=True), remedy


def _work(pipe: Connection, parent: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Run a worker's process."""
    # With a start method that uses a server, the sentinel below signals the parent's end.
    quiet_worker(parent if os.getppid() == parent else os.getppid())
    begun: Exception | None = None
    try:
        if initializer is not None:
            initializer(*initargs)
    except Exception as error:
        begun = error
    above = multiprocessing.parent_process()
    assert above is not None
    with suppress(EOFError, OSError):
        while pipe in wait([pipe, above.sentinel]):
            try:
                task = pipe.recv()
            except (EOFError, OSError):
                raise
            except Exception as unreadable:
                _answer(pipe, whole=True, error=unreadable)
                continue
            if task is None:
                return
            if begun is not None:
                _answer(pipe, whole=True, error=begun)
                continue
            function, calls = task
            for arguments, named in calls:
                try:
                    value = function(*arguments, **named)
                except Exception as error:
                    _answer(pipe, error=error)
                else:
                    _answer(pipe, value=value)
                    del value


def _answer(pipe: Connection, *, whole: bool = False, error: Exception | None = None, value: Any = None) -> None:
    try:
        pipe.send((whole, None if error is None else _portable(error), value))
    except OSError:
        raise
    except Exception as unsendable:
        pipe.send((whole, RuntimeError(f"the result cannot be sent: {unsendable!r}"), None))


def _portable(error: Exception) -> Exception:
    """Return the error in a picklable form, with its traceback as a note."""
    with suppress(Exception):
        again: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301  # its own
        if not isinstance(error, PpgsError):
            again.add_note("".join(traceback.format_exception(error)))
        return again
    return RuntimeError("".join(traceback.format_exception(error)))


class WorkerPool:
    """Replaces `multiprocessing.Pool`, with the methods that nnU-Net uses (pinned by the contract test)."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,  # noqa: ARG002  # only bounds leaks
        context: Any = None,
        *,
        finished: Callable[[], object] | None = None,
    ) -> None:
        """`finished` is called after every task, in one of the pool's threads."""
        self._finished = finished
        refuse_unguarded_main()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._mutex = threading.Lock()
        self._closed = self._ending = False
        self.lost: WorkerLost | None = None
        self._pool: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        try:
            with guarded_forks():
                for _ in range(processes or os.cpu_count() or 1):
                    self._pool.append(_Worker(context or multiprocessing, initializer, initargs))
            for worker in self._pool:
                thread = threading.Thread(target=self._serve, args=(worker,), daemon=True, name="pool")
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.terminate()
            raise

    def apply(self, function: Callable[..., Any], args: Sequence[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
        return self.apply_async(function, args, kwds).get()

    def apply_async(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwds: Mapping[str, Any] = {},
    ) -> Results:
        return Results(self._submit(function, [(tuple(args), dict(kwds))], 1), single=True)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        values: list[Any] = self.map_async(function, items, chunksize).get()
        return values

    def map_async(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int | None = None) -> Results:
        return self.starmap_async(function, ((item,) for item in items), chunksize)

    def starmap(
        self, function: Callable[..., Any], items: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        values: list[Any] = self.starmap_async(function, items, chunksize).get()
        return values

    def starmap_async(
        self, function: Callable[..., Any], items: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> Results:
        return Results(self._submit(function, [(tuple(item), {}) for item in items], chunksize))

    def imap(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        futures = self._submit(function, [((item,), {}) for item in items], chunksize)
        return (future.result() for future in futures)

    def imap_unordered(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        futures = self._submit(function, [((item,), {}) for item in items], chunksize)
        return (future.result() for future in as_completed(futures))

    def _submit(self, function: Callable[..., Any], calls: list[_Call], size: int | None) -> list[Future[Any]]:
        if self._closed:
            raise ValueError("Pool not running")
        # Four chunks per worker, as in multiprocessing: few messages, and no worker waits long for another.
        size = size or -(-len(calls) // (4 * len(self._pool))) or 1
        tasks = [_Task(function, calls[start : start + size]) for start in range(0, len(calls), size)]
        for task in tasks:
            with self._mutex:
                if self.lost is None:
                    self._tasks.put(task)
                else:
                    task.fail(self.lost)
        return [future for task in tasks for future in task.futures]

    def _serve(self, worker: _Worker) -> None:
        """Give tasks to one worker until there are no more, or it dies."""
        while (task := self._tasks.get()) is not None:
            try:
                worker.do(task)
            except _Gone:
                self._lose(worker, task)
                return
            if self._finished is not None:
                self._finished()
        worker.dismiss()

    def _lose(self, worker: _Worker, task: _Task) -> None:
        if self._ending:
            task.fail(CancelledError())
            return
        how, remedy = worker.how_it_ended()
        with self._mutex:
            what = f"a worker process {how} while it worked on {task.case()}"
            self.lost = self.lost or WorkerLost(what, "", remedy)
        task.fail(self.lost)
        worker.lost = True
        self._drop(self.lost)
        for other in self._pool:
            other.kill()

    def _drop(self, error: BaseException) -> None:
        """Drop tasks that no worker has started, and end the threads that wait for more."""
        with suppress(Empty):
            while True:
                if (task := self._tasks.get_nowait()) is not None:
                    task.fail(error)
        for _ in self._pool:
            self._tasks.put(None)

    def close(self) -> None:
        """Take no more tasks; the workers end when all are done."""
        if not self._closed:
            self._closed = True
            for _ in self._pool:
                self._tasks.put(None)

    def terminate(self) -> None:
        """End all workers now."""
        self._closed = self._ending = True
        for worker in self._pool:
            worker.kill()
        self._drop(CancelledError())
        for worker in self._pool:
            worker.process.join(_LAST_SECONDS)

    def join(self) -> None:
        """Wait until all workers have ended, after `close` or `terminate`."""
        if not self._closed:
            raise ValueError("Pool is still running")
        # Each watches its worker.
        for thread in self._threads:
            thread.join()
        for worker in self._pool:
            worker.process.join(_LAST_SECONDS)
            worker.kill()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()
        # nnU-Net raises its own error when it sees that a worker is gone.
        if self.lost is not None and isinstance(error, Exception) and not isinstance(error, PpgsError):
            raise self.lost from error


def quickest_start() -> Any:
    """Return the context whose workers start fastest: on Linux they are forked, and import nothing again.

    Only for work that runs no parallel region of PyTorch: a forked process lacks the threads of its parent.
    """
    return multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")


@contextmanager
def watched_pools(finished: Callable[[], object] | None = None, *, context: Any = None) -> Iterator[None]:
    """Within the block, make every `multiprocessing.Pool` of this process a `WorkerPool`, if given of this context.

    All of them look the class up here when they are made, also where `Pool` was imported by name before.
    """
    before = multiprocessing.pool.Pool

    class Watched(WorkerPool):  # a class, as torch.multiprocessing derives its own pool from it
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(
                *arguments, finished=finished, **named if context is None else named | {"context": context}
            )

    multiprocessing.pool.Pool = Watched  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        multiprocessing.pool.Pool = before  # type: ignore[misc]
