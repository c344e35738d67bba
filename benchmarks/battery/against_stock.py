"""Part 3: whole epochs beside stock nnU-Net: equal loader processes, three epochs a stage, the first reported apart."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from battery.data import plans_folder, write_task
from battery.record import Part, Skip
from battery.training import use_roots

_SPEED = Path(__file__).resolve().parents[1] / "speed.py"
# Task, contenders with the seconds that each is expected to last, epochs and iterations. A curriculum compiles for
# every stage where nothing has compiled before.
_RUNS: tuple[tuple[str, dict[str, float], int, int], ...] = (
    ("004", {"stock": 60, "constant": 60, "efficiency": 240, "performance": 240}, 45, 50),
    ("001", {"stock": 130, "efficiency": 240}, 30, 20),
)


def take(part: Part) -> None:
    # The tiny task has ten stages.
    runs = (("004", {"stock": 0.0, "efficiency": 0.0}, 10, 1),) if part.dry else _RUNS
    for task, contenders, epochs, iterations in runs:
        for name, seconds in contenders.items():
            take_one = partial(contender, part, task, name, epochs, iterations, seconds)
            part.item(f"Task{task[1:]} {name}", seconds, take_one)
    summarise(part)


def contender(part: Part, task: str, name: str, epochs: int, iterations: int, seconds: float) -> dict[str, Any]:
    """One training of `benchmarks/speed.py`, with its epochs' seconds: of one that lasts too long those that it did."""
    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    dataset = write_task(folder, use_roots(part.root))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    batch = plans["configurations"]["3d_fullres"]["batch_size"]
    so_far = part.root / "so_far.json"
    command = [
        sys.executable, str(_SPEED), dataset, "--root", str(part.root), "--device", part.device, "--batch-size",
        str(batch), "--epochs", str(epochs), "--iterations", str(iterations), "--limit-seconds", "0.1", "--only", name,
        "--so-far", str(so_far),
    ]  # fmt: skip
    so_far.unlink(missing_ok=True)
    asked = {"batch": batch, "epochs": epochs, "iterations": iterations}
    try:
        found: dict[str, Any] = json.loads(part.output_of(command, seconds).splitlines()[-1])
    except subprocess.TimeoutExpired:
        if not so_far.is_file():
            raise
        found = json.loads(so_far.read_text())
        return found | asked | {"unfinished": True}
    from speed import warm

    return found | asked | {"warm_seconds": sum(warm(found))}


def summarise(part: Part) -> None:
    """Warm seconds of every contender relative to stock nnU-Net's of the same task."""
    results = {n: e["result"] for n, e in part.content["items"].items() if "warm_seconds" in (e.get("result") or {})}
    ratios = {}
    for name, found in results.items():
        base = results.get(f"{name.split(' ')[0]} stock")
        if base is not None:
            ratios[name] = round(found["warm_seconds"] / base["warm_seconds"], 4)
    part.item("relative to stock", 0, lambda: ratios)
