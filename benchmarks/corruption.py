"""Detection of damage to the files of a run.

    python benchmarks/corruption.py RUN_FOLDER [--tries 1000] [--seed 0]

Truncates the final checkpoint and flips one bit of it, `--tries` times each: either it is refused (`DamagedRun`) or its
content equals the whole one's. Truncates the event log at every byte: what is read is a prefix of what was written.
Exit code 1 on anything else.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ppgs.errors import DamagedRun
from ppgs.nnunet.checkpoints.content import content_digest
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.state import RunState


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run, rng = RunFolder(given.run), random.Random(given.seed)
    whole = content_digest(load_checkpoint(run.checkpoint_final))
    content = run.checkpoint_final.read_bytes()
    wrong = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        copy = Path(folder) / "checkpoint.pth"
        for kind in ("truncation", "bit flip"):
            counts: Counter[str] = Counter()
            for _ in range(given.tries):
                position = rng.randrange(len(content))
                if kind == "truncation":
                    copy.write_bytes(content[:position])
                else:
                    if not copy.exists() or copy.stat().st_size != len(content):
                        shutil.copy(run.checkpoint_final, copy)
                    bit = 1 << rng.randrange(8)
                    with copy.open("r+b") as file:
                        file.seek(position)
                        file.write(bytes([content[position] ^ bit]))
                try:
                    outcome = "harmless" if content_digest(load_checkpoint(copy)) == whole else "NOT DETECTED"
                except DamagedRun:
                    outcome = "detected"
                except Exception as error:
                    outcome = f"CRASH {type(error).__name__}"
                counts[outcome] += 1
                if kind == "bit flip":
                    with copy.open("r+b") as file:
                        file.seek(position)
                        file.write(content[position : position + 1])
            wrong += sum(n for outcome, n in counts.items() if outcome.isupper() or outcome.startswith("CRASH"))
            print(f"checkpoint, {kind}: {given.tries} tries, {dict(counts)}", flush=True)
        wrong += _events(run, Path(folder) / "events.jsonl")
    sys.exit(1 if wrong else 0)


def _events(run: RunFolder, copy: Path) -> int:
    records, content = read_events(run.events), run.events.read_bytes()
    wrong = 0
    for length in range(len(content) + 1):
        copy.write_bytes(content[:length])
        found = read_events(copy)
        RunState().apply_all(found)
        wrong += found != records[: content[:length].count(b"\n")]
    print(f"event log, truncation at every byte: {len(content) + 1} tries, {wrong} wrong", flush=True)
    return wrong


if __name__ == "__main__":
    main()
