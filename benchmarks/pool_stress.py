"""Stress test of worker pools that begin and end beside other work.

    python benchmarks/pool_stress.py [--pools 500] [--workers 12] [--busy 2] [--limit 30] [--unfixed | --guarded]

Each pool is nnU-Net's own, of its shortest function (`create_lists_from_splitted_dataset_folder`, on every task's way
into planning): its workers are forked, do next to nothing and are ended while the last ones still start. Pools are made
in a process that handles stop signals as a training does. By default as ppgs makes them; `--guarded` leaves
multiprocessing's pools in place and guards the forks alone; `--unfixed` does neither, as before. A pool that has not
ended within the limit counts as a hang, and its process is replaced. Prints a JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from types import FrameType

_CASES = 20


def make_pools(mode: str, count: int, workers: int) -> None:
    """In its own process: pools one after another, with a line for each that has ended."""
    from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

    from ppgs.errors import StoppedEarly
    from ppgs.processes.pool import watched_pools
    from ppgs.processes.signals import STOP_SIGNALS, guarded_forks
    from ppgs.processes.stop import Stop

    asked: list[int] = []

    def old_handler(number: int, _: FrameType | None) -> None:
        if not asked:
            asked.append(number)
            raise StoppedEarly(f"stopped on request ({signal.Signals(number).name})")

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if mode == "unfixed":
            for number in STOP_SIGNALS:
                signal.signal(number, old_handler)
        else:
            Stop(lambda _: None).install()
            stack.enter_context(guarded_forks())
        if mode == "ppgs":
            stack.enter_context(watched_pools())
        for case in range(_CASES):
            Path(folder, f"case_{case:03d}_0000.nii.gz").touch()
        print("ready", flush=True)
        for number in range(count):
            found = create_lists_from_splitted_dataset_folder(folder, ".nii.gz", num_processes=workers)
            assert len(found) == _CASES
            print(number, flush=True)


class Maker:
    """The process that makes pools, and the lines that it prints."""

    def __init__(self, mode: str, count: int, workers: int) -> None:
        self.lines: Queue[str] = Queue()
        command = [sys.executable, __file__, "--make", mode, "--pools", str(count), "--workers", str(workers)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        threading.Thread(target=self._read, daemon=True).start()
        if self.lines.get(timeout=300) != "ready":
            raise RuntimeError("pools cannot be made")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("")

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def count_hangs(mode: str, pools: int, workers: int, limit: float) -> tuple[int, int]:
    """Make this many pools; returns how many of them hung, and how many failed."""
    made = hung = failed = 0
    while made < pools:
        maker = Maker(mode, pools - made, workers)
        try:
            while made < pools:
                line = maker.lines.get(timeout=limit)
                made += 1
                if not line:
                    failed += 1
                    break
        except Empty:
            made, hung = made + 1, hung + 1
        finally:
            maker.end()
    return hung, failed


def spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=500)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--busy", type=int, default=2, help="processes that do nothing but compute")
    parser.add_argument("--limit", type=float, default=30, help="seconds after which a pool hangs")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--unfixed", action="store_true", help="the handler without the guard")
    kind.add_argument("--guarded", action="store_true", help="the guard without ppgs' pools")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make_pools(given.make, given.pools, given.workers)
        return
    mode = "unfixed" if given.unfixed else "guarded" if given.guarded else "ppgs"
    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(given.busy)]
    for process in busy:
        process.start()
    started = time.monotonic()
    try:
        hung, failed = count_hangs(mode, given.pools, given.workers, given.limit)
    finally:
        for process in busy:
            process.kill()
    seconds = round(time.monotonic() - started, 1)
    asked = {"mode": mode, "pools": given.pools, "workers": given.workers, "busy": given.busy, "limit": given.limit}
    print(json.dumps({**asked, "hung": hung, "failed": failed, "seconds": seconds}))


if __name__ == "__main__":
    main()
