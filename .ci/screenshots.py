"""Take the documentation's pictures of the monitor from a real, finished run: `docs/monitor-*.svg`.

    ppgs train demo
    python .ci/screenshots.py RUN_FOLDER [--share 0.8]

The run's event log is shown as it was after that share of its epochs. `docs/screenshots.json` records digests of the
snapshots in `tests/tui` that show the same screens; `tests/docs/test_screenshots.py` compares them, so that the
pictures are stale exactly when the monitor looks different.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from ppgs.commands.monitor import RunControl
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Owner
from ppgs.tasks import Roots
from ppgs.tui.app import MonitorApp

ROOT = Path(__file__).resolve().parents[1]
DOCS, SNAPSHOTS = ROOT / "docs", ROOT / "tests" / "tui" / "__snapshots__" / "test_snapshots"
RECORD = DOCS / "screenshots.json"
# Picture: terminal size, keys pressed before it is taken, and the snapshot of the same screen.
PICTURES = {
    "monitor-80x24.svg": ((80, 24), (), "test_states[training-80x24].svg"),
    "monitor-200x50.svg": ((200, 50), (), "test_states[training-200x50].svg"),
    "monitor-slices-80x24.svg": ((80, 24), ("3",), "test_screens[3-80x24].svg"),
}


def digests() -> dict[str, str]:
    """Digest of the snapshot that each picture corresponds to."""
    return {
        name: hashlib.sha256((SNAPSHOTS / snapshot).read_bytes()).hexdigest()[:16]
        for name, (_, _, snapshot) in PICTURES.items()
    }


def rewind(source: RunFolder, results: Path, share: float) -> tuple[RunFolder, float]:
    """Copy a finished run as it was after this share of its epochs; returns it and the time of its last event."""
    place = results / source.path.relative_to(source.path.parents[2])
    run = RunFolder(place)
    shutil.copytree(source.path, place, ignore=shutil.ignore_patterns("*.pth", "validation*"))
    shutil.copy(source.model / "dataset.json", run.model)
    lines = run.events.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    epochs = next(r["epochs"] for r in records if r["type"] == "run_started")
    last = next(i for i, r in enumerate(records) if r["type"] == "epoch_finished" and r["epoch"] + 1 >= share * epochs)
    # A few iterations of the next epoch, as a live training has.
    last += next(i for i, r in enumerate(records[last:]) if r["type"] == "iterations")
    run.events.write_text("".join(line + "\n" for line in lines[: last + 1]), encoding="utf-8")
    now = float(records[last]["time"])
    reached = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    log = run.log.read_text(encoding="utf-8").splitlines(keepends=True)
    run.log.write_text("".join(line for line in log if line[:19] <= reached), encoding="utf-8")
    manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    run.manifest.write_text(json.dumps({**manifest, "status": "training"}), encoding="utf-8")
    run.lock.write_text(json.dumps(vars(Owner.this_process())), encoding="utf-8")
    return run, now


async def take(run: RunFolder, now: float, size: tuple[int, int], keys: tuple[str, ...]) -> str:
    """The screen as SVG after these keys."""
    app = MonitorApp([run], RunControl(Roots.choose(None, os.environ)), refresh=3600.0, clock=lambda: now)
    async with app.run_test(size=size) as pilot:
        await asyncio.wait_for(app.caught_up.wait(), 120)
        for key in keys:
            await pilot.press(key)
        for _ in range(5):
            await pilot.pause(0.5)
        return app.export_screenshot(title="ppgs monitor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="fold folder of a finished run of the demo")
    parser.add_argument("--share", type=float, default=0.8, help="share of the epochs [default: 0.8]")
    asked = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory() as folder:
        run, now = rewind(RunFolder(asked.run.resolve()), Path(folder), asked.share)
        for name, (size, keys, _) in PICTURES.items():
            (DOCS / name).write_text(asyncio.run(take(run, now, size, keys)), encoding="utf-8")
    RECORD.write_text(json.dumps(digests(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
