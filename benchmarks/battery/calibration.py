"""Part 4: memory predicted and measured for all ten tasks, and epoch times after a calibration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from battery import against_stock
from battery.data import plans_folder, write_task
from battery.record import Part, Skip
from battery.training import network_of, stages_of, use_roots

_BENCHMARKS = Path(__file__).resolve().parents[1]


def take(part: Part) -> None:
    tasks = ("004",) if part.dry else tuple(f"{n:03d}" for n in range(1, 11))
    for task in tasks:
        part.item(f"Task{task[1:]} memory", 30, lambda t=task: memory(part, t))
    part.item("calibration", 90, lambda: calibrated(part))
    for name in () if part.dry else ("stock", "efficiency"):
        part.item(f"Task02 {name}", 120, lambda n=name: against_stock.contender(part, "002", n, 30, 10))


def memory(part: Part, task: str) -> dict[str, Any]:
    """One iteration of the first and the last stage as `ppgs train` takes them, in a process of its own."""
    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    command = [
        sys.executable, str(_BENCHMARKS / "ten_tasks.py"), str(folder), "--one", "efficiency", "--prepared", "--root",
        str(part.root), "--device", part.device, "--iterations", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=None if part.dry else max(1.0, part.left))
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def calibrated(part: Part) -> dict[str, Any]:
    """Seconds of steps predicted after a calibration beside those of steps taken afterwards."""
    folder = plans_folder(part.options.plans, "004", dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    from ppgs.estimate.calibration import calibrate, keep
    from ppgs.estimate.cost import Costs
    from ppgs.estimate.machine import choose_machine
    from ppgs.estimate.tracer import Tracer

    os.environ["PPGS_CACHE"] = str(part.root / "cache")
    network, facts = network_of(folder)
    stages = stages_of(folder, "efficiency")
    tracer = Tracer(network, mixed=part.device == "cuda")
    budget = 4.0 if part.dry else 30.0
    found = calibrate(tracer, [(s.patch_size, s.batch_size) for s in stages], part.device, budget=budget)
    keep(found)
    costs = Costs(tracer, facts, choose_machine(part.device, None, found))
    return {
        "device": found.device,
        "overhead": found.speed.overhead,
        "rate": found.speed.rate,
        "context": found.context,
        "workspace": found.workspace,
        "watts": found.watts,
        "points": [point.model_dump(mode="json") for point in found.speed.points],
        "predicted_memory": [costs.memory(stage).expected for stage in stages],
        "task": write_task(folder, use_roots(part.root)),
    }
