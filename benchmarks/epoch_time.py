"""Predicted against measured epoch time of every stage, after calibration on this device.

    python benchmarks/epoch_time.py Task04_Hippocampus --batch-size 2 --iterations 20 [--device cpu] [--json FILE]

Calibrates, predicts, then takes whole epochs of real steps of every stage, with the schedule's training and validation
iterations. Data loading is left out on both sides; `ppgs plan-schedule --against RUN` compares with a real run.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any, Literal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="a shipped task")
    parser.add_argument("--mode", default="efficiency")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-clock", action="store_true", help="CPU seconds of one thread, for a shared machine")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    import torch

    from ppgs.estimate.calibration import calibrate
    from ppgs.estimate.cost import Costs
    from ppgs.estimate.machine import choose_machine
    from ppgs.estimate.shipped_tasks import read_task
    from ppgs.estimate.tracer import Tracer
    from ppgs.nnunet.probing.step import Step
    from ppgs.schedule import Recipe, resolve

    task = read_task(asked.task)
    recipe = Recipe.model_validate(
        {"mode": asked.mode, "batch_size": asked.batch_size, "iterations_per_epoch": asked.iterations}
    )
    schedule = resolve(recipe, task.made_for)
    mixed = asked.device == "cuda"
    tracer = Tracer(task.network, mixed=mixed)
    clock: Literal["wall", "cpu"] = "cpu" if asked.cpu_clock else "wall"
    now = time.process_time if asked.cpu_clock else time.perf_counter
    started = time.perf_counter()
    calibration = calibrate(tracer, [(s.patch_size, s.batch_size) for s in schedule.stages], asked.device, clock=clock)
    print(f"calibrated in {time.perf_counter() - started:.0f} s on {calibration.device}, torch {calibration.torch}")
    speed = calibration.speed
    print(
        f"overhead {speed.overhead * 1e3:.0f} ms a step, {speed.rate / 1e9:.0f} GFLOP/s, {len(speed.points)} points\n"
    )
    estimate = Costs(tracer, task.made_for, choose_machine(asked.device, None, calibration)).estimate(schedule)

    if asked.cpu_clock:
        torch.set_num_threads(1)
    step = Step(task.network.model_dump(mode="json"), asked.device, mixed=mixed, trained=True)
    step.compile()
    last = schedule.stages[-1]
    real: dict[int, float] = {}
    # In random order, so that a disturbance of the machine does not look like a law.
    for i in random.Random(0).sample(range(len(schedule.stages)), len(schedule.stages)):
        stage = schedule.stages[i]
        step.train(stage.patch_size, stage.batch_size)
        started = now()
        for _ in range(schedule.iterations_per_epoch):
            step.train(stage.patch_size, stage.batch_size)
        for _ in range(schedule.validation_iterations_at(schedule.first_epoch(i))):
            step.validate(last.patch_size, last.batch_size)
        if mixed:
            torch.cuda.synchronize()
        real[i] = now() - started
    rows: list[dict[str, Any]] = []
    print("| stage | patch | predicted s | measured s | error |")
    print("| --- | --- | --- | --- | --- |")
    for i, cost in enumerate(estimate.stages):
        predicted = cost.epoch_seconds or float("nan")
        rows.append({"patch": cost.stage.patch_size, "predicted": predicted, "measured": real[i]})
        patch = " ".join(map(str, cost.stage.patch_size))
        print(f"| {i + 1} | {patch} | {predicted:.2f} | {real[i]:.2f} | {predicted / real[i] - 1:+.0%} |")
    errors: list[float] = [r["predicted"] / r["measured"] - 1 for r in rows]
    total = sum(r["predicted"] for r in rows) / sum(r["measured"] for r in rows) - 1
    print(f"\nfrom {min(errors):+.0%} to {max(errors):+.0%}; all stages together {total:+.1%}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
