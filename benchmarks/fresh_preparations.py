"""Test for hangs of fresh preparations beside other work.

    python benchmarks/fresh_preparations.py [--count 10] [--busy 2] [--limit 300] [--train]

Each one is `ppgs prepare demo` with its own root, beside processes that do nothing but compute; `--train` continues
to one epoch of one iteration with its validation (`ppgs train`). One that has not ended within the limit counts as a
hang. Each is reported on stderr; prints a JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time

_SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--batch-size", "2", "--device", "cpu")


def spin() -> None:
    while True:
        pass


def code_of(command: list[str], limit: float) -> int | None:
    """The command's exit code; None if it hangs, and then it is killed with all that it started."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--busy", type=int, default=2, help="processes that do nothing but compute")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a preparation hangs")
    parser.add_argument("--train", action="store_true", help="train and validate one iteration too")
    given = parser.parse_args()
    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(given.busy)]
    for process in busy:
        process.start()
    codes, seconds = [], []
    options = [*_SHORT, "--no-tui", "--no-energy"] if given.train else []
    try:
        for _ in range(given.count):
            with tempfile.TemporaryDirectory() as root:
                started = time.monotonic()
                verb = "train" if given.train else "prepare"
                command = [sys.executable, "-m", "ppgs", verb, "demo", "--root", root, *options]
                codes.append(code_of(command, given.limit))
                seconds.append(round(time.monotonic() - started, 1))
                print(f"exit code {codes[-1]} after {seconds[-1]} s", file=sys.stderr, flush=True)
    finally:
        for process in busy:
            process.kill()
    hung, failed = codes.count(None), sum(code not in (0, None) for code in codes)
    asked = {"count": given.count, "busy": given.busy, "limit": given.limit, "train": given.train}
    print(json.dumps({**asked, "hung": hung, "failed": failed, "seconds": seconds}))


if __name__ == "__main__":
    main()
