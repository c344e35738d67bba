"""Exactness after kills: a training that is killed again and again against an uninterrupted one.

    python benchmarks/kills.py --root DIR [--kills 5] [--signal KILL|TERM] [--seed 0] [--task demo]

Trains a task once undisturbed and once killed at random instants (drawn from the seed) and resumed each time; compares
the final weights bit by bit and looks for processes and temporary files that are left. Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--task", default="demo")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=12.0, help="seconds until a kill, at most")
    parser.add_argument("options", nargs="*", help="options of train, after --")
    given = parser.parse_args()
    root: Path = given.root
    subprocess.run([sys.executable, "-m", "ppgs", "prepare", given.task, "--root", str(root)], check=True)
    train = ["train", given.task, "--device", "cpu", "--no-tui", "--no-energy", *given.options]

    def start(results: str, *arguments: str) -> subprocess.Popen[bytes]:
        environ = {n: str(root / n) for n in ("nnUNet_raw", "nnUNet_preprocessed")} | {
            "nnUNet_results": str(root / results)
        }
        return subprocess.Popen(
            [sys.executable, "-m", "ppgs", *arguments],
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    began = time.perf_counter()
    assert start("whole", *train).wait() == 0
    print(f"undisturbed: {time.perf_counter() - began:.0f} s")
    rng = random.Random(given.seed)
    process, kills = start("killed", *train), 0
    while True:
        try:
            code = process.wait(rng.uniform(3, given.longest) if kills < given.kills else None)
            if code != 0:
                sys.exit(f"ended with code {code} after {kills} kills")
            break
        except subprocess.TimeoutExpired:
            process.send_signal(getattr(signal, f"SIG{given.signal}"))
            process.wait()
            kills += 1
            print(f"kill {kills}", flush=True)
            process = start("killed", "resume", "--no-tui")
    weights = [
        torch.load(next((root / r).glob("*/*/fold_*/checkpoint_final.pth")), weights_only=True)["network_weights"]
        for r in ("whole", "killed")
    ]
    same = all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    temporary = [p for p in root.rglob("*") if ".part-" in p.name or p.name == "lock"]
    alive = [p for p in psutil.process_iter(["cmdline"]) if str(root) in " ".join(p.info["cmdline"] or [])]
    alive = [p for p in alive if p.pid != os.getpid() and p.pid != os.getppid()]
    print(f"kills {kills}, weights bit-equal: {same}, temporary files: {len(temporary)}, processes: {len(alive)}")
    sys.exit(0 if same and not temporary and not alive else 1)


if __name__ == "__main__":
    main()
