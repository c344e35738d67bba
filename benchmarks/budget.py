"""Accuracy of trainings with a budget: N real ones, and by how much each missed its end.

    python benchmarks/budget.py TASK --root DIR [--budgets 2m,4m] [--schedules efficiency,constant] [--runs 5] [...]

Options after `--` are passed to `ppgs train`, such as `-- --device cpu --batch-size 2`. A training that is finished is
not repeated; other passed options need another `--root`. Time is that of the event log from the first iteration to the
end of the final validation, without pauses; `forecast` is what the last decision expected of the final validation. With
`--interrupt SECONDS` every training is stopped once after so long, and resumed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cells import same_settings

from ppgs.estimate.budget import parse_budget
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.state import RunState
from ppgs.tasks import Roots, resolve_task


@dataclass(frozen=True)
class Ended:
    """One finished training: seconds or watt-hours, and what happened on the way."""

    spent: float
    budget: float
    epochs: int
    decisions: int
    validation: float
    forecast: float
    dice: float | None

    @property
    def deviation(self) -> float:
        return self.spent / self.budget - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--budgets", default="2m,4m")
    parser.add_argument("--schedules", default="efficiency,constant")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--interrupt", type=float)
    mine = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    asked = parser.parse_args(mine)
    passed = sys.argv[len(mine) + 2 :]
    print("| schedule | budget | seed | deviation | epochs | plans | final validation, s | forecast, s | Dice |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    found: list[Ended] = []
    for budget in asked.budgets.split(","):
        for schedule in asked.schedules.split(","):
            for seed in range(asked.runs):
                run = train(asked.task, asked.root, budget, schedule, seed, passed, asked.interrupt)
                one = measured(run, budget)
                found.append(one)
                dice = "-" if one.dice is None else f"{one.dice:.4f}"
                print(
                    f"| {schedule} | {budget} | {seed} | {one.deviation:+.1%} | {one.epochs} | {one.decisions} | "
                    f"{one.validation:.0f} | {one.forecast:.0f} | {dice} |",
                    flush=True,
                )
    sizes = [abs(one.deviation) for one in found]
    within = sum(size <= 0.03 for size in sizes)
    print(f"\n{within} of {len(sizes)} within 3 %, the largest deviation {max(sizes):.1%}")


def train(
    task: str, root: Path, budget: str, schedule: str, seed: int, passed: Sequence[str], interrupt: float | None
) -> RunFolder:
    """The finished run, trained now where it is not there; exits with the command's message where that fails."""
    name = f"budget-{budget}" + ("" if interrupt is None else "-interrupted")
    label = "_".join([schedule, *([f"seed{seed}"] if seed else []), name])
    same_settings(root, f"budgets of {Path(task).name}", {"passed": passed})
    dataset = resolve_task(task, Roots.choose(root, os.environ)).dataset
    pattern = f"nnUNet_results/{dataset}/nnUNetTrainerPPGS_{label}__*/fold_0"
    there = [RunFolder(path) for path in root.glob(pattern)]
    if not any(is_finished(run) for run in there):
        command = [sys.executable, "-m", "ppgs", "train", task, "--root", str(root), "--schedule", schedule]
        command += ["--budget", budget, "--seed", str(seed), "--name", name, "--overwrite", "--no-tui", *passed]
        # What the task needs is prepared by the first one; the measured time begins after that.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if interrupt is not None:
            stop_after(process, root, pattern, interrupt)
        _, said = process.communicate()
        if interrupt is not None and process.returncode == 75:
            (path,) = root.glob(pattern)
            again = [sys.executable, "-m", "ppgs", "resume", str(path), "--root", str(root), "--no-tui"]
            process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            _, said = process.communicate()
        if process.returncode:
            sys.exit(said)
    (path,) = root.glob(pattern)
    return RunFolder(path)


def is_finished(run: RunFolder) -> bool:
    return any(record["type"] == "run_finished" for record in read_events(run.events))


def stop_after(process: subprocess.Popen[str], root: Path, pattern: str, seconds: float) -> None:
    """Ask the training to stop when it has worked for so long."""
    while process.poll() is None:
        for path in root.glob(pattern):
            if RunState().apply_all(read_events(RunFolder(path).events)).worked > seconds:
                os.kill(process.pid, signal.SIGTERM)
                return
        time.sleep(1.0)


def measured(run: RunFolder, text: str) -> Ended:
    """Return the measurements in the event log of a finished training."""
    records, budget = read_events(run.events), parse_budget(text)
    state = RunState().apply_all(records)
    plans = [record for record in records if record["type"] == "budget_planned"]
    times = {record["type"]: record["time"] for record in records}
    validation = times["run_finished"] - times["validation_started"]
    spent = state.worked
    if budget.kind == "energy":
        epochs = [r for r in records if r["type"] == "epoch_finished"]
        spent = sum(r["energy_wh"] for r in epochs)
        # The final validation is not measured: at the mean power of the training.
        spent += validation * spent / sum(r["seconds"] for r in epochs)
    forecast = plans[-1]["validation_seconds"]
    return Ended(spent, budget.amount, state.epochs, len(plans), validation, forecast, state.mean_dice)


if __name__ == "__main__":
    main()
