"""Speed of the monitor: opening long logs, memory, and response to keys.

    python benchmarks/monitor.py [open|events|runs]

`open` is a log of 100,000 epochs, `events` one of 200,000 events (20,000 epochs with progress in between), `runs` 20
runs that share 200,000 events. Each is watched by a separate process in a terminal (a pseudo terminal of 200 x 50)
that this process plays: it opens the log some times and presses keys, while the log is read and after. Printed are

- seconds from the application's start until all is read and drawn (median and most), and the process's peak memory
- milliseconds from a key's byte to the first frame that follows, and to the last byte of all frames that follow, i.e.
  until the terminal was silent for 0.15 s after; median and most, and the most for each key. What is repainted for
  other reasons meanwhile counts too.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import resource
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppgs.runs.folder import RunFolder
from ppgs.tui.app import MonitorApp
from ppgs.tui.system import Reading

STAGES = 20


class NoMachine:
    def read(self, pid: int | None) -> Reading:
        return Reading()


class NoControl:
    def stop(self, run: RunFolder) -> None: ...

    def resume(self, run: RunFolder) -> None: ...

    def works_on(self, run: RunFolder) -> bool:
        return False


def write_run(results: Path, fold: int, epochs: int, between: int) -> RunFolder:
    """A finished run of that many epochs, with progress records in between."""
    run = RunFolder.place(results, "Dataset998_Bench", "bench", "nnUNetPlans", "3d_fullres", fold)
    run.own.mkdir(parents=True)
    run.manifest.write_text(
        json.dumps(
            {"name": f"bench-fold{fold}", "task": "bench", "dataset": "Dataset998_Bench", "plans": "nnUNetPlans",
             "configuration": "3d_fullres", "fold": fold, "trainer": "t", "schedule": "bench", "status": "finished",
             "request": {"task": "bench", "kind": "nnunet", "schedule": "", "schedule_name": "bench"}}
        )
    )  # fmt: skip
    sequence = 0
    per_stage = epochs // STAGES
    stages = [
        {"patch_size": [8 * (i + 1)] * 3, "batch_size": 2, "epochs": per_stage, "voxels": (8 * (i + 1)) ** 3}
        for i in range(STAGES)
    ]
    with run.events.open("w") as file:

        def write(kind: str, **fields: Any) -> None:
            nonlocal sequence
            file.write(json.dumps({"v": 1, "seq": sequence, "time": 1.8e9 + sequence, "type": kind, **fields}) + "\n")
            sequence += 1

        write("run_started", epoch=0, epochs=epochs, iterations_per_epoch=250, resumed=False, stages=stages)
        for epoch in range(epochs):
            stage = epoch // per_stage
            for step in range(between):
                write("iterations", epoch=epoch, stage=stage, phase="train", iteration=step, iterations=250, loss=-0.51)
            write(
                "epoch_finished", epoch=epoch, stage=stage, train_loss=-0.842863917 + 1 / (epoch + 1),
                val_loss=-0.857131123 + 1 / (epoch + 1), pseudo_dice=[0.956066966, 0.862419188], ema_dice=0.847978353,
                learning_rate=0.01 * (1 - epoch / epochs), seconds=7.87238237, train_seconds=6.721810695,
                validation_seconds=0.423409968, checkpoint_seconds=0.010762070, data_wait_seconds=0.064250679,
                peak_memory_bytes=5_000_000_000, energy_wh=0.5,
            )  # fmt: skip
        write("run_finished")
    run.log.write_text("a line of the log\n" * 10_000)
    return run


class Watched(MonitorApp):
    """Reports through a pipe when all is read."""

    CSS_PATH = Path(sys.modules[MonitorApp.__module__].__file__ or "").with_name("monitor.tcss")  # type: ignore[assignment]

    def __init__(self, runs: list[RunFolder], pipe: int) -> None:
        super().__init__(runs, NoControl(), refresh=0.5, sampler=NoMachine())
        self._pipe, self._started = pipe, time.perf_counter()

    def on_mount(self) -> None:
        # Textual calls that of the class it derives from as well.
        self.run_worker(self._tell(), group="tell")

    async def _tell(self) -> None:
        await self.caught_up.wait()
        os.write(self._pipe, json.dumps({"opened": time.perf_counter() - self._started}).encode() + b"\n")


def watch(folder: Path, pipe: int) -> None:
    Watched([RunFolder(p.parent) for p in sorted(folder.glob("*/*/fold_*/ppgs"))], pipe).run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    os.write(pipe, json.dumps({"peak": peak}).encode() + b"\n")


WIDTH, HEIGHT = 200, 50
SILENCE = 0.15
# Less is not a frame but a mode of the terminal that is set.
FRAME_BYTES = 200
KEYS = ("2", "+", "\x1b[C", "r", "3", "4", "5", "6", "7", "8", "1", "d", "d", "n", "o", "o", "?", "q", "2", "1")
FOR_SEVERAL_RUNS = ("n", "o")
NAMES = {"\x1b[C": "right"}
# What does something immediately, whatever is known of the run by then.
KEYS_WHILE_READING = ("2", "4", "1", "6")
TIMES = 5


class Terminal:
    """Plays the terminal of a monitor."""

    def __init__(self, screen: int, pipe: int) -> None:
        self._screen, self._pipe = screen, pipe
        self._told = b""

    def press(self, key: str) -> tuple[float, float] | None:
        """Seconds until the first frame of what follows and until its last byte, None where nothing follows."""
        pressed = time.perf_counter()
        os.write(self._screen, key.encode())
        seen = self.until_silent()
        return None if seen is None else (seen[0] - pressed, seen[1] - pressed)

    def until_silent(self) -> tuple[float, float] | None:
        """When the first frame was there, and the last byte before a silence; None where no frame came."""
        first, last, count, patience = None, 0.0, 0, 2.0
        while select.select([self._screen], [], [], patience)[0]:
            count += len(os.read(self._screen, 1 << 16))
            last, patience = time.perf_counter(), SILENCE
            if first is None and count >= FRAME_BYTES:
                first = last
        return None if first is None else (first, last)

    def first_screen(self) -> None:
        """Wait until the monitor has drawn something."""
        drawn = b""
        while b"Overview" not in drawn:
            drawn += os.read(self._screen, 1 << 16)

    def told(self, wait: float = 0.0) -> dict[str, float] | None:
        """The next thing that the monitor sends through its pipe."""
        end = time.perf_counter() + wait
        while b"\n" not in self._told:
            ready, _, _ = select.select([self._pipe, self._screen], [], [], max(end - time.perf_counter(), 0.0))
            if self._pipe in ready:
                self._told += os.read(self._pipe, 4096)
            elif self._screen in ready:
                os.read(self._screen, 1 << 16)
            if not ready:
                return None
        line, self._told = self._told.split(b"\n", 1)
        return dict(json.loads(line))


@contextmanager
def monitor(folder: Path) -> Iterator[Terminal]:
    screen, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    told, tell = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, "--watch", str(folder), "--pipe", str(tell)],
        stdin=other, stdout=other, stderr=other, pass_fds=[tell], start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )  # fmt: skip
    try:
        os.close(other)
        yield Terminal(screen, told)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        for handle in (screen, told, tell):
            os.close(handle)


def measure(folder: Path, runs: int) -> dict[str, Any]:
    keys = [key for key in KEYS if runs > 1 or key not in FOR_SEVERAL_RUNS]
    opened: list[float] = []
    peaks: list[float] = []
    reading: list[tuple[float, float]] = []
    after: dict[str, list[tuple[float, float]]] = {}
    for turn in range(2 * TIMES):
        with monitor(folder) as terminal:
            terminal.first_screen()
            told = None
            # Opening is timed without keys in between.
            while turn >= TIMES and told is None:
                taken = terminal.press(KEYS_WHILE_READING[len(reading) % len(KEYS_WHILE_READING)])
                told = terminal.told()
                if taken is not None:
                    reading.append(taken)
            told = told or terminal.told(60)
            assert told is not None
            if turn < TIMES:
                opened.append(told["opened"])
            terminal.until_silent()
            for key in keys if turn >= TIMES else ():
                taken = terminal.press(key)
                if taken is not None:
                    after.setdefault(NAMES.get(key, key), []).append(taken)
            os.write(terminal._screen, b"q")
            peaks.append((terminal.told(60) or {})["peak"])
    every = [one for taken in after.values() for one in taken]
    return {
        "opened_s": [round(statistics.median(opened), 2), round(max(opened), 2)],
        "peak_mib": round(max(peaks)),
        "reading_ms": _middle_and_most(reading),
        "after_ms": _middle_and_most(every),
        "most_ms": {key: [round(1000 * max(t)) for t in zip(*taken, strict=True)] for key, taken in after.items()},
    }


def _middle_and_most(taken: list[tuple[float, float]]) -> dict[str, list[int]]:
    """Median and most until the first frame and until the last."""
    return {
        name: [round(1000 * statistics.median(times)), round(1000 * max(times))]
        for name, times in zip(("first", "last"), zip(*taken, strict=True), strict=True)
    }


SIZES = {"open": (1, 100_000, 0), "events": (1, 20_000, 9), "runs": (20, 1_000, 9)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", metavar="|".join(SIZES))
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watch is not None:
        watch(given.watch, given.pipe)
        return
    for name in given.sizes or SIZES:
        count, epochs, between = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            for fold in range(count):
                write_run(Path(folder), fold, epochs, between)
            load = os.getloadavg()[0]
            print(name, json.dumps(measure(Path(folder), count)), f"load {load:.1f}", flush=True)


if __name__ == "__main__":
    main()
