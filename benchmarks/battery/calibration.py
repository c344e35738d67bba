"""Part 4: memory predicted and measured for all ten tasks, and epoch times after a calibration."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from battery import against_stock
from battery.data import plans_folder
from battery.record import Part, Skip
from battery.training import network_of, stages_of

_BENCHMARKS = Path(__file__).resolve().parents[1]
_MEMORY_SECONDS = 30


def take(part: Part) -> None:
    # First: what is predicted afterwards is of the calibrated machine.
    part.item("calibration", 90, partial(calibrated, part))
    tasks = ("004",) if part.dry else tuple(f"{n:03d}" for n in range(1, 11))
    for task in tasks:
        part.item(f"Task{task[1:]} memory", _MEMORY_SECONDS, partial(memory, part, task))
    for name, seconds in () if part.dry else (("stock", 120), ("efficiency", 240)):
        part.item(f"Task02 {name}", seconds, partial(against_stock.contender, part, "002", name, 30, 10, seconds))


def memory(part: Part, task: str) -> dict[str, Any]:
    """Take two iterations of the first and the last stage, as `ppgs train` does, in a separate process."""
    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    command = [
        sys.executable, str(_BENCHMARKS / "ten_tasks.py"), str(folder), "--one", "efficiency", "--prepared", "--device",
        part.device, "--iterations", "2",
        # Few and small cases in a folder of their own: those of whole size would take minutes to write.
        "--cases", "2", "--cap", "1.5", "--root", str(part.root / "memory"),
    ]  # fmt: skip
    found: dict[str, Any] = json.loads(part.output_of(command, _MEMORY_SECONDS).splitlines()[-1])
    return found


def calibrated(part: Part) -> dict[str, Any]:
    """A calibration, and the memory of the stages that is predicted with it."""
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
    }
