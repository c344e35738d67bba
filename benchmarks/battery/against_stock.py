"""Part 3: whole epochs beside stock nnU-Net: equal loader processes, three epochs a stage, the first reported apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from battery.data import plans_folder, write_task
from battery.record import Part, Skip
from battery.training import use_roots

_SPEED = Path(__file__).resolve().parents[1] / "speed.py"
# Task, contenders, epochs and iterations; each contender is expected to last so many seconds.
_RUNS = (
    ("004", ("stock", "constant", "efficiency", "performance"), 45, 50, 60),
    ("001", ("stock", "efficiency"), 30, 20, 130),
)


def take(part: Part) -> None:
    # The tiny task has ten stages.
    runs = (("004", ("stock", "efficiency"), 10, 1, 0),) if part.dry else _RUNS
    for task, contenders, epochs, iterations, seconds in runs:
        for name in contenders:
            part.item(
                f"Task{task[1:]} {name}", seconds,
                lambda t=task, n=name, e=epochs, i=iterations: contender(part, t, n, e, i),
            )  # fmt: skip
    summarise(part)


def contender(part: Part, task: str, name: str, epochs: int, iterations: int) -> dict[str, Any]:
    """One training of `benchmarks/speed.py`, with its epochs' seconds."""
    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    dataset = write_task(folder, use_roots(part.root))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    batch = plans["configurations"]["3d_fullres"]["batch_size"]
    command = [
        sys.executable, str(_SPEED), dataset, "--root", str(part.root), "--device", part.device, "--batch-size",
        str(batch), "--epochs", str(epochs), "--iterations", str(iterations), "--limit-seconds", "0.1", "--only", name,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=None if part.dry else max(1.0, part.left))
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    from speed import warm

    return found | {"warm_seconds": sum(warm(found)), "batch": batch, "epochs": epochs, "iterations": iterations}


def summarise(part: Part) -> None:
    """Warm seconds of every contender relative to stock nnU-Net's of the same task."""
    results = {n: e["result"] for n, e in part.content["items"].items() if "warm_seconds" in (e.get("result") or {})}
    ratios = {}
    for name, found in results.items():
        base = results.get(f"{name.split(' ')[0]} stock")
        if base is not None:
            ratios[name] = round(found["warm_seconds"] / base["warm_seconds"], 4)
    part.item("relative to stock", 0, lambda: ratios)
