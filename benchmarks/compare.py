"""Time and memory of `ppgs compare` for two trainings on ten tasks with five folds.

    python benchmarks/compare.py [RESULTS] [--repeat N]

RESULTS is an nnU-Net results folder; without it, synthetic results of the Decathlon's size are made. Each run is a
fresh process, as a user starts it; peak memory is the process's own (`ru_maxrss`), its seconds include starting Python.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SECONDS, MEBIBYTES = 10.0, 500.0
# Cases and foreground classes of the ten Decathlon tasks.
TASKS = [(484, 3), (20, 1), (131, 2), (260, 2), (32, 2), (63, 1), (281, 2), (303, 2), (41, 1), (126, 1)]
MODELS = ("nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres")


def synthetic(root: Path) -> Path:
    """Two trainings, ten tasks, five folds, with 1000 epochs of progress each."""
    rng = np.random.default_rng(0)
    counts = {"FN": 1, "FP": 1, "IoU": 0.5, "TN": 9, "TP": 9, "n_pred": 10, "n_ref": 10}
    for number, (cases, classes) in enumerate(TASKS, 1):
        for model in MODELS:
            for fold in range(5):
                path = root / f"Dataset{number:03d}_Task{number}" / model / f"fold_{fold}"
                (path / "validation").mkdir(parents=True)
                entries = [
                    {
                        "metrics": {str(k + 1): {**counts, "Dice": float(rng.uniform(0.3, 1))} for k in range(classes)},
                        "prediction_file": f"validation/case_{case}.nii.gz",
                        "reference_file": f"labelsTr/case_{case}.nii.gz",
                    }
                    for case in range(fold, cases, 5)
                ]
                (path / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": entries}, indent=1))
                lines = [f"{0.9 * (1 - 0.99**e)},{60 * e},{60 * e + 55}" for e in range(1000)]
                heading = "ema_fg_dice,epoch_start_timestamps,epoch_end_timestamps"
                (path / "progress.csv").write_text("\n".join([heading, *lines]) + "\n")
    return root


def measure(results: Path, options: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one `ppgs compare` on the results."""
    before = time.perf_counter()
    command = [sys.executable, "-m", "ppgs", "compare", str(results), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read().decode() if process.stderr else ''}")
    # Bytes on macOS, KiB elsewhere.
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = arguments.results or synthetic(Path(folder) / "results")
        report = ["--html", str(Path(folder) / "report.html")]
        found = {
            name: [measure(results, options) for _ in range(arguments.repeat)]
            for name, options in (("statistics", []), ("statistics and report", report))
        }
    print(f"- date: {time.strftime('%Y-%m-%d')}")
    print(f"- machine: {platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}")
    print(f"- data: {'given results' if arguments.results else 'synthetic results of the size of the Decathlon'}")
    print("\n| what | seconds (median) | seconds (worst) | peak MiB | within |\n| --- | ---: | ---: | ---: | --- |")
    for name, runs in found.items():
        seconds, peak = sorted(s for s, _ in runs), max(m for _, m in runs)
        within = "yes" if seconds[-1] < SECONDS and peak < MEBIBYTES else "NO"
        print(f"| {name} | {seconds[len(seconds) // 2]:.2f} | {seconds[-1]:.2f} | {peak:.0f} | {within} |")
    print(f"\nTargets: {SECONDS:g} s and {MEBIBYTES:g} MiB.")


if __name__ == "__main__":
    main()
