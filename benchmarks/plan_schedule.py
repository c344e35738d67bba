"""Estimates for every Decathlon task, both plans, every mode: errors, time and host memory, without any cache.

    python benchmarks/plan_schedule.py ../shared/msd [--json FILE]

The time is that of a whole `ppgs plan-schedule --json`, process start and tracing included; the memory is the largest
resident size of that process and of the one that traces.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ("efficiency", "performance", "constant", "random", "pgps-2024", "pgps-plus-2024")
PLANS = ("nnUNetPlans", "nnUNetResEncUNetMPlans")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="folder with DatasetNNN_NAME/nnUNetPlans.json and dataset.json")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows, errors = [], 0
    print("| task | plans | mode | stages | peak GiB | live | floor | of constant's FLOPs | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder in sorted(asked.plans.glob("Dataset*")):
        for plans in PLANS:
            for mode in MODES:
                with tempfile.TemporaryDirectory() as cache:
                    started = time.perf_counter()
                    done = subprocess.run(
                        [sys.executable, "-m", "ppgs", "plan-schedule", str(folder / f"{plans}.json")]
                        + ["--schedule", mode, "--json"],
                        capture_output=True,
                        text=True,
                        env={**os.environ, "PPGS_CACHE": cache},
                        check=False,
                    )
                    seconds = time.perf_counter() - started
                if done.returncode != 0:
                    errors += 1
                    print(f"| {folder.name[7:]} | {plans} | {mode} | failed: {done.stderr.strip()[:200]} |")
                    continue
                found = json.loads(done.stdout)
                stages = found["stages"]
                peak = max(stages, key=lambda s: s["memory_bytes"])
                row = {
                    "task": folder.name,
                    "plans": plans,
                    "mode": mode,
                    "stages": len(stages),
                    "expected": peak["memory_bytes"],
                    "live": peak["memory_live_bytes"],
                    "floor": peak["memory_floor_bytes"],
                    "flops": found["relative_to_constant"]["flops"],
                    "seconds": seconds,
                }
                rows.append(row)
                print(
                    f"| {folder.name[7:]} | {plans} | {mode} | {len(stages)} | {row['expected'] / 2**30:.2f} | "
                    f"{row['live'] / 2**30:.2f} | {row['floor'] / 2**30:.2f} | {row['flops']:.3f} | {seconds:.1f} |",
                    flush=True,
                )
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    slowest = max((r["seconds"] for r in rows), default=0)
    print(f"\n{len(rows)} estimates, {errors} errors; slowest {slowest:.1f} s; largest process {largest:.2f} GiB")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
