"""Draw the plain output of a short training of the demo as an animated picture: `docs/train-demo.svg`.

    ppgs train demo --epochs 10 --iterations 1 --device cpu --no-tui --no-energy
    python .ci/recording.py RUN_FOLDER

The run's event log is replayed `SPEED` times as fast. `docs/recording.json` has a digest of the lines that fixed
records give; `tests/docs/test_recording.py` compares it, so that the picture is stale when the output looks different.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from ppgs.cli.output import err, out
from ppgs.cli.progress import PlainNarrator
from ppgs.cli.train.follow import tell_result
from ppgs.runs.events import Record, read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.state import RunState

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE, DIGEST = DOCS / "train-demo.svg", DOCS / "recording.json"
COMMAND = "ppgs train demo --epochs 10 --iterations 1 --device cpu --no-tui --no-energy"
WIDTH, SPEED = 112, 10.0
STAGES = [{"patch_size": [8, 8, 8], "batch_size": 2, "epochs": 2, "voxels": 512}]
RECORDS: list[Record] = [
    {"type": "preparing", "time": 0.0, "step": "preprocessing", "done": 2, "total": 2},
    {"type": "run_started", "time": 1.0, "epoch": 0, "epochs": 2, "resumed": False, "device": "cpu"}
    | {"iterations_per_epoch": 2, "stages": STAGES},
    {"type": "epoch_finished", "time": 3.0, "epoch": 0, "stage": 0, "seconds": 2.0, "train_loss": 1.0, "val_loss": 0.9}
    | {"ema_dice": 0.1},
    {"type": "validation_started", "time": 5.0, "cases": 5},
]

Lines = list[tuple[float, str]]  # seconds since the start, text


def narrate(records: Iterable[Record], state: RunState) -> Lines:
    """Return the lines about the records, each with its record's time."""
    lines: Lines = []
    narrator = PlainNarrator()
    for record in records:
        state.apply(record)
        with err.capture() as said:
            narrator.update(state, [record])
        lines += [(float(record["time"]), line) for line in said.get().splitlines()]
    return lines


def digest() -> str:
    """Return a digest of the lines about fixed records."""
    return hashlib.sha256(repr(narrate(RECORDS, RunState())).encode()).hexdigest()[:16]


def replay(run: RunFolder) -> Lines:
    """Return all lines of the command that trained a finished run."""
    records, state = read_events(run.events), RunState()
    first, last = float(records[0]["time"]), float(records[-1]["time"])
    place = f"{read_manifest(run).name}: ~/ppgs_data/{run.path.relative_to(run.results.parent)}"
    lines = [(first, f"$ {COMMAND}"), (first, place), *narrate(records, state)]
    with err.capture() as notes, out.capture() as result:
        tell_result(run, state, as_json=False)
    lines += [(last, line) for line in [*result.get().splitlines(), *notes.get().splitlines()]]
    return [(seconds - first, line) for seconds, line in lines]


def draw(lines: Lines) -> str:
    """Return an SVG in which the lines appear one after the other; without animation all of them are there."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    times: list[float] = []
    for seconds, line in lines:
        for start in range(0, max(len(line), 1), WIDTH):
            times.append(seconds)
            console.print(line[start : start + WIDTH], markup=False)
    console.print()  # Rich cuts the last row off
    svg = console.export_svg(title="ppgs", unique_id="train")
    delays = "".join(
        f'[clip-path="url(#train-line-{row})"]{{animation-delay:{seconds / SPEED:.2f}s}}'
        for row, seconds in enumerate(times)
    )
    style = (
        "@keyframes appear{from{visibility:hidden}}@media (prefers-reduced-motion:no-preference)"
        f'{{[clip-path^="url(#train-line-"]{{animation:appear 0.01s both}}{delays}}}'
    )
    # Rich names fonts on a server, which a picture cannot load anyway.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("<style>", f"<style>{style}", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="fold folder of the finished run")
    run = RunFolder(parser.parse_args().run.resolve())
    err.width = out.width = 10 * WIDTH
    # Where the command was typed: from elsewhere its output names --root.
    os.chdir(run.results.parents[1])
    PICTURE.write_text(draw(replay(run)), encoding="utf-8")
    DIGEST.write_text(json.dumps({PICTURE.name: digest()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
