"""Dice per training time: `efficiency` and `constant` in trainings of about equal time, over seeds.

    python benchmarks/dice.py TASK --root DIR [--pairs 30:12,60:24] [--seeds 3] [--iterations 20] [--batch-size 2]

A pair is the epochs of `efficiency` and of `constant` that take equal time (`benchmarks/speed.py` measures the time of
an epoch of each; 0 epochs leave one of them out). Trainings that are done are not repeated. Prints a table, and after
how many seconds a given Dice is reached, interpolated between the budgets; `--markdown FILE` writes both down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cells import same_settings


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--pairs", default="30:12,60:24")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--augmentation", default="batchwise")
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def trained(options: argparse.Namespace, schedule: str, epochs: int, seed: int) -> dict[str, Any]:
    """Dice and seconds of one training by the command itself."""
    own = ("task", "device", "batch_size", "iterations")
    same_settings(options.root, "Dice per time", {key: getattr(options, key) for key in own})
    name = f"dice-{epochs}-{seed}"
    if (options.precision, options.augmentation) != ("auto", "batchwise"):
        name += f"-{options.precision}-{options.augmentation}"
    pattern = f"nnUNet_results/*/*PPGS_{schedule}_*{name}__*/fold_0"
    summaries = [p / "validation" / "summary.json" for p in options.root.glob(pattern)]
    if not any(p.is_file() for p in summaries):
        command = [sys.executable, "-m", "ppgs", "train", options.task, "--root", options.root, "--schedule", schedule]
        command += ["--epochs", epochs, "--iterations", options.iterations, "--batch-size", options.batch_size]
        command += ["--device", options.device, "--seed", seed, "--name", name, "--overwrite", "--no-tui"]
        command += ["--precision", options.precision, "--augmentation", options.augmentation]
        done = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.stderr)
    (fold,) = options.root.glob(pattern)
    records = map(json.loads, (fold / "ppgs" / "events.jsonl").read_text().splitlines())
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    return {
        "dice": summary["foreground_mean"]["Dice"],
        "seconds": sum(r["seconds"] for r in records if r["type"] == "epoch_finished"),
    }


def time_to(dice: float, budgets: list[tuple[float, float]]) -> float | None:
    """Seconds after which a schedule reaches the Dice, linear between its budgets (seconds, Dice); None outside."""
    budgets = sorted(budgets)
    for (begun, low), (ended, high) in pairwise(budgets):
        if low <= dice <= high and low < high:
            return begun + (dice - low) / (high - low) * (ended - begun)
    return None


def times_to_reach(budgets: dict[str, list[tuple[float, float]]]) -> list[str]:
    """A table with a row for every mean Dice that some budget reached."""
    lines = ["", "| Dice | " + " | ".join(f"{s} s" for s in budgets) + " |", "| --- |" + " --- |" * len(budgets)]
    for dice in sorted({d for points in budgets.values() for _, d in points}):
        times = [time_to(dice, points) for points in budgets.values()]
        lines.append(f"| {dice:.4f} | " + " | ".join("-" if t is None else f"{t:.0f}" for t in times) + " |")
    return lines


def main() -> None:
    options = arguments()
    budgets: dict[str, list[tuple[float, float]]] = {}
    lines = [
        f"# Dice in equal time: {Path(options.task).name}, fold 0, batch {options.batch_size}, "
        f"epochs of {options.iterations} iterations, {options.device}",
        "",
        f"{date.today()}, {os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}; precision "
        f"{options.precision}, augmentation {options.augmentation}; {options.seeds} seeds, mean and deviation.",
        "",
        "| schedule | epochs | validation Dice | by seed | seconds of training |",
        "| --- | --- | --- | --- | --- |",
    ]
    for pair in options.pairs.split(","):
        for schedule, epochs in zip(("efficiency", "constant"), map(int, pair.split(":")), strict=True):
            found: list[dict[str, Any]] = []
            if not epochs:
                continue
            for seed in range(options.seeds):
                found.append(trained(options, schedule, epochs, seed))
                print(schedule, epochs, seed, found[-1], file=sys.stderr, flush=True)
            dice = [f["dice"] for f in found]
            spread = f" ± {stdev(dice):.4f}" if len(dice) > 1 else ""
            each = ", ".join(f"{d:.4f}" for d in dice)
            seconds = ", ".join(f"{f['seconds']:.0f}" for f in found)
            lines.append(f"| {schedule} | {epochs} | {mean(dice):.4f}{spread} | {each} | {seconds} |")
            budgets.setdefault(schedule, []).append((mean(f["seconds"] for f in found), mean(dice)))
    lines += times_to_reach(budgets)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
