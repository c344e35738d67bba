"""Pools whose workers die: the waiting code gets an error with the case immediately."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ppgs.errors import BadInput, WorkerLost
from ppgs.processes.pool import WorkerPool, watched_pools

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Case:
    name: str


def work(path: str, deed: str) -> str:
    if deed in ("SIGKILL", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, deed))
    if deed == "exit":
        os._exit(3)
    if deed == "memory":
        raise MemoryError
    if deed == "wrong":
        raise BadInput("unusable", path, "mend it")
    if deed == "odd":
        raise Odd(1, 2)
    if deed == "unsendable":
        return threading.Lock()  # type: ignore[return-value]
    if deed == "slow":
        time.sleep(60)
    return f"{path} done"


class Odd(Exception):
    """An error that cannot be rebuilt from its pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def name_of(case: Case) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return case.name


def gone(pids: list[int]) -> bool:
    """Also if nobody has asked for their exit codes yet, as where process 1 of a container does not."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
def test_results_come_as_from_a_stock_pool(context: Any) -> None:
    with WorkerPool(2, context=context) as pool:
        later = pool.starmap_async(work, [("/a", ""), ("/b", "")])
        assert pool.starmap(work, ((f"/{n}", "") for n in range(30))) == [f"/{n} done" for n in range(30)]
        assert later.get() == ["/a done", "/b done"]
        assert later.ready()
        assert later.successful()
        assert pool.map(abs, [-1, -2, 3]) == [1, 2, 3]
        assert list(pool.imap(abs, [-1, -2])) == [1, 2]
        assert sorted(pool.imap_unordered(abs, [-1, -2])) == [1, 2]
        assert pool.apply(work, ("/a",), {"deed": ""}) == "/a done"
        assert pool.map(abs, []) == []
        with pytest.raises(multiprocessing.TimeoutError):
            pool.apply_async(work, ("/a", "slow")).get(0.1)
        pids = [worker.process.pid for worker in pool._pool]
        assert all(worker.is_alive() for worker in pool._pool)
    assert gone(pids)


def in_a_pool(context: Any, results: Any) -> None:
    with WorkerPool(1, context=context) as pool:
        results.send((pool.starmap(work, [("/a", "")]), multiprocessing.current_process().daemon))


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
def test_a_daemonic_process_has_pools_too(context: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    # A task of Celery or Airflow is such a process.
    process = FORK.Process(target=in_a_pool, args=(context, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == (["/a done"], True)
    process.join()


def test_a_closed_pool_does_what_it_has_and_ends() -> None:
    pool = WorkerPool(2, context=FORK)
    result = pool.starmap_async(work, [(f"/{n}", "") for n in range(20)])
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.map(abs, [1])
    pool.join()
    assert len(result.get()) == 20
    assert [worker.process.exitcode for worker in pool._pool] == [0, 0]


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("SIGKILL", "was killed by SIGKILL"),
        ("SIGTERM", "was killed by SIGTERM"),
        ("exit", "ended with code 3"),
        ("memory", "there was no memory for case_3.nii.gz"),
    ],
)
def test_a_worker_that_dies_is_told_with_its_case(context: Any, deed: str, said: str) -> None:
    calls = [(f"/data/case_{n}.nii.gz", deed if n == 3 else "") for n in range(40)]
    with WorkerPool(2, context=context) as pool, pytest.raises(WorkerLost, match=said) as lost:
        pool.starmap(work, calls)
    assert "case_3.nii.gz" in str(lost.value)
    assert lost.value.exit_code == 75
    # Only what looks like a kill may have been a lack of memory.
    remedy = lost.value.problems[0].remedy
    assert ("nnUNet_def_n_proc" in remedy) == (deed in ("SIGKILL", "memory"))
    assert "the same command continues" in remedy


def test_finished_tasks_are_counted() -> None:
    done: list[None] = []
    with watched_pools(finished=lambda: done.append(None)), FORK.Pool(2) as pool:
        pool.starmap(work, [(f"/{n}", "") for n in range(5)], 1)
        assert isinstance(pool, WorkerPool)
        pool.close()
        pool.join()
    assert len(done) == 5


def test_the_context_given_replaces_the_one_that_nnunet_requests() -> None:
    with watched_pools(context=FORK), SPAWN.Pool(1) as pool:
        assert isinstance(pool, WorkerPool)
        assert pool.apply(abs, (-1,)) == 1
        assert [type(worker.process) for worker in pool._pool] == [FORK.Process]


def test_all_that_was_asked_for_ends_with_the_lost_worker() -> None:
    with WorkerPool(2, context=FORK) as pool:
        slow = pool.apply_async(work, ("/slow", "slow"))
        killed = pool.apply_async(work, ("/killed", "SIGKILL"))
        waiting = [pool.apply_async(work, (f"/{n}", "")) for n in range(5)]
        for result in (killed, slow, *waiting):
            with pytest.raises(WorkerLost, match="killed"):
                result.get(30)
        with pytest.raises(WorkerLost, match="worked on killed"):
            pool.apply(work, ("/later", ""))
        assert not all(worker.is_alive() for worker in pool._pool)


def test_a_worker_that_died_idle_is_noticed_with_the_next_task() -> None:
    with WorkerPool(1, context=FORK) as pool:
        assert pool.map(abs, [-1]) == [1]
        pool._pool[0].process.kill()
        with pytest.raises(WorkerLost, match="worked on next"):
            pool.apply_async(work, ("/next", "")).get(30)


def test_a_case_is_named_by_what_is_called_so() -> None:
    with WorkerPool(1, context=FORK) as pool, pytest.raises(WorkerLost, match="worked on patient 7"):
        pool.map(name_of, [Case("patient 7")])


def test_stopped_workers_do_not_keep_a_pool_from_ending() -> None:
    with WorkerPool(2, context=FORK) as pool:
        pids = [int(worker.process.pid or 0) for worker in pool._pool]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        # More than a pipe can hold: whoever sends it waits for the worker.
        pool.map_async(len, [bytes(10_000_000)] * 4)
    assert gone(pids)


@pytest.mark.parametrize(("deed", "kind"), [("wrong", BadInput), ("odd", RuntimeError), ("unsendable", RuntimeError)])
def test_an_error_in_a_worker_is_raised_and_the_pool_goes_on(deed: str, kind: type[Exception]) -> None:
    with WorkerPool(1, context=FORK) as pool:
        with pytest.raises(kind) as raised:
            pool.starmap(work, [("/a", ""), ("/b", deed), ("/c", "")])
        if isinstance(raised.value, BadInput):
            assert raised.value.problems[0].where == "/b"
        else:
            assert "in work" in str(raised.value) or "the result cannot be sent" in str(raised.value)
        with pytest.raises(Exception, match=r"local object '.*<lambda>'"):
            pool.map(lambda value: value, [1])
        assert pool.map(abs, [-1]) == [1]


def fail() -> None:
    raise BadInput("no plans", "plans.json")


def test_an_initializer_that_fails_is_what_every_task_raises() -> None:
    with WorkerPool(2, initializer=fail, context=FORK) as pool, pytest.raises(BadInput, match="no plans"):
        pool.map(abs, [1, 2])


def test_workers_end_with_their_parent() -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        pool = WorkerPool(2, context=FORK)
        pool.starmap_async(work, [("/a", "slow")] * 2)
        os.write(writable, repr([worker.process.pid for worker in pool._pool]).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    pids = eval(os.read(readable, 100))
    os.waitpid(child, 0)
    for _ in range(600):
        if gone(pids):
            return
        time.sleep(0.1)
    pytest.fail("the workers live on")


@pytest.fixture
def nnunet_pools() -> Iterator[Callable[..., Any]]:
    """`Pool` as nnU-Net's modules hold it, imported by name long before."""
    from multiprocessing import Pool

    with watched_pools():
        yield Pool


def test_watched_pools_take_the_place_of_all_others(nnunet_pools: Callable[..., Any]) -> None:
    with nnunet_pools(processes=1) as pool:
        assert isinstance(pool, WorkerPool)
    with SPAWN.Pool(1) as pool:
        assert isinstance(pool, WorkerPool)
        assert "Spawn" in type(pool._pool[0].process).__name__


def test_a_pool_of_others_is_left_alone() -> None:
    with watched_pools():
        pass
    with FORK.Pool(1) as pool:
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert pool.map(abs, [-1]) == [1]


def test_the_lost_worker_counts_more_than_what_the_waiting_code_says(nnunet_pools: Callable[..., Any]) -> None:
    """Wait as nnU-Net does, until a worker of the first ones is no longer alive."""
    with pytest.raises(WorkerLost, match="case_2"), nnunet_pools(2) as pool:
        workers = list(pool._pool)
        result = pool.starmap_async(work, [("/case_1", "slow"), ("/case_2", "SIGKILL")])
        while not result.ready():
            if not all(worker.is_alive() for worker in workers):
                raise RuntimeError("Some background worker is 6 feet under.")
            time.sleep(0.01)
        raise RuntimeError("Some background worker is 6 feet under.")


def test_a_program_without_a_guard_ends_instead_of_running_in_its_own_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "from ppgs.errors import WorkerLost\n"
        "from ppgs.processes.pool import WorkerPool\n"
        "try:\n"
        "    WorkerPool(1, context=multiprocessing.get_context('spawn')).apply(abs, (-1,))\n"
        "except WorkerLost as lost:\n"
        "    print(lost)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert "ended with code 1" in done.stdout
    assert '__name__ == "__main__"' in done.stderr
