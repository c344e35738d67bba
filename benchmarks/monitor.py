"""How fast the monitor opens long logs, how much memory it takes, and how fast it answers keys.

    python benchmarks/monitor.py [open|events|runs]

`open` is a log of 100,000 epochs, `events` one of 200,000 events (20,000 epochs with progress in between), `runs` 20
runs that share 200,000 events. Each is measured in a process of its own: seconds until all is read and drawn, the
process's peak memory, and the time from a key to the screen that shows its effect, while the log is read and after.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
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


async def measure(runs: list[RunFolder]) -> dict[str, float]:
    started = time.perf_counter()
    app = MonitorApp(runs, NoControl(), refresh=0.5, sampler=NoMachine())
    keys: dict[str, list[float]] = {"reading": [], "after": []}
    async with app.run_test(size=(200, 50)) as pilot:

        async def press_all(where: str) -> None:
            for key in ("2", "3", "5", "1", "d", "n", "d"):
                pressed = time.perf_counter()
                await pilot.press(key)
                keys[where].append(time.perf_counter() - pressed)
                if where == "reading" and app.caught_up.is_set():
                    return

        presses = asyncio.create_task(press_all("reading")) if "--keys" in sys.argv else None
        await app.caught_up.wait()
        opened = time.perf_counter() - started
        if presses is not None:
            await presses
        await press_all("after")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    return {
        "opened_seconds": opened,
        "peak_mib": peak,
        "slowest_key_reading_ms": 1000 * max(keys["reading"], default=0.0),
        "slowest_key_after_ms": 1000 * max(keys["after"]),
    }


SIZES = {"open": (1, 100_000, 0), "events": (1, 20_000, 9), "runs": (20, 1_000, 9)}


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        folders = [RunFolder(p.parent) for p in sorted(Path(sys.argv[2]).glob("*/*/fold_*/ppgs"))]
        print(json.dumps(asyncio.run(measure(folders))))
        return
    for name in sys.argv[1:] or SIZES:
        count, epochs, between = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            for fold in range(count):
                write_run(Path(folder), fold, epochs, between)
            for more in ([], ["--keys"]):
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", folder, *more], capture_output=True, text=True, check=True
                )
                print(name, *more, done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
