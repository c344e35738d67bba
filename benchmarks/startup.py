"""Time of `ppgs --help` and a first `ppgs plan-schedule`, beside the imports that every command line needs.

    python benchmarks/startup.py [--rounds 10]

The commands run in turn, each in a fresh home without any cache; the best time of each counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASELINE = "import typer, rich.console, pydantic, yaml"
COMMANDS = {
    f'python -c "{BASELINE}"': ["-c", BASELINE],
    "ppgs --help": ["-m", "ppgs", "--help"],
    "ppgs plan-schedule Task01_BrainTumour": ["-m", "ppgs", "plan-schedule", "Task01_BrainTumour"],
}


def seconds(arguments: list[str]) -> float:
    """The time of one run in an empty home; raises `CalledProcessError` if the command fails."""
    with tempfile.TemporaryDirectory() as home:
        caches = {"HOME": home, "XDG_CACHE_HOME": str(Path(home, "cache")), "PPGS_CACHE": str(Path(home, "ppgs"))}
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], env={**os.environ, **caches}, stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    best = [min(found) for found in times.values()]
    print("| command | best of | seconds | ratio |\n| --- | ---: | ---: | ---: |")
    for name, found in zip(times, best, strict=True):
        print(f"| `{name}` | {rounds} | {found:.3f} | {found / best[0]:.2f} |")


if __name__ == "__main__":
    main()
