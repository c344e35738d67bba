"""Estimates for every Decathlon task, both plans, every mode: errors, time and host memory.

    python benchmarks/plan_schedule.py ../shared/msd [--tasks 'Dataset00[1-5]*'] [--json FILE]

The time is that of a whole `ppgs plan-schedule --json`, process start included. The cache is empty for the first mode
of every network, whose time includes the tracing; the others find the traces there. CPU seconds are printed beside,
since a shared machine stretches the clock. The memory is the largest resident size of any process, the tracing one
included.
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


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="folder with DatasetNNN_NAME/nnUNetPlans.json and dataset.json")
    parser.add_argument("--tasks", default="Dataset*", metavar="PATTERN", help="which of them")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "ppgs", "plan-schedule", "--json"]
    rows, errors = [], 0
    print("| task | plans | mode | stages | peak GiB | live | floor | of constant's FLOPs | s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder in sorted(asked.plans.glob(asked.tasks)):
        for plans in PLANS:
            cache = tempfile.TemporaryDirectory()
            for mode in MODES:
                cpu, started = cpu_seconds(), time.perf_counter()
                done = subprocess.run(
                    [*command, folder / f"{plans}.json", "--schedule", mode],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "PPGS_CACHE": cache.name},
                    check=False,
                )
                seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
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
                    "cpu_seconds": cpu,
                    "traced": mode == MODES[0],
                }
                rows.append(row)
                print(
                    f"| {folder.name[7:]} | {plans} | {mode} | {len(stages)} | {row['expected'] / 2**30:.2f} | "
                    f"{row['live'] / 2**30:.2f} | {row['floor'] / 2**30:.2f} | {row['flops']:.3f} | {seconds:.1f} | "
                    f"{cpu:.1f} |",
                    flush=True,
                )
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n{len(rows)} estimates, {errors} errors; largest process {largest:.2f} GiB")
    for traced, words in ((True, "traced"), (False, "from the cache")):
        some = [r for r in rows if r["traced"] == traced]
        clock, cpu = (max((r[k] for r in some), default=0) for k in ("seconds", "cpu_seconds"))
        print(f"slowest {words}: {clock:.1f} s, {cpu:.1f} s of CPU")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
