"""A training whose viewers are killed, and runs whose folders are moved."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from tests.helpers.commands import SHORT, Ppgs, processes_of, start, wait_for
from tests.helpers.runs import events, final_weights, leftovers, manifest, only_run


def on_terminal(environ: dict[str, str], *arguments: object) -> subprocess.Popen[bytes]:
    """A command on its own terminal, whose screen is not read."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ppgs", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, **environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(theirs)

    def drain() -> None:
        try:
            while os.read(ours, 1 << 16):
                pass
        except OSError:
            os.close(ours)

    threading.Thread(target=drain, daemon=True).start()
    return process


def test_viewers_that_are_killed_do_not_touch_the_training(trained_demo: Path, demo_environ: dict[str, str]) -> None:
    results = Path(demo_environ["nnUNet_results"])
    first = on_terminal(demo_environ, "train", "demo", *SHORT[:-1])
    wait_for(results, "checkpoint_saved", 2)
    run = only_run(demo_environ)
    second = on_terminal(demo_environ, "monitor", run)
    for viewer in (first, second):
        time.sleep(1.5)
        assert viewer.poll() is None
        viewer.kill()
        viewer.wait()
    wait_for(results, "run_finished")
    end = time.monotonic() + 30
    while processes_of(run) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(run) == [] and leftovers(run) == []
    assert manifest(run)["status"] == "finished"
    assert not any(e["type"] == "warning" for e in events(run))
    ours, theirs = final_weights(run), final_weights(trained_demo)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_a_folder_that_is_moved_is_told_by_name_and_goes_on_at_its_place(
    demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs
) -> None:
    process = start(demo_environ, "train", "demo", *SHORT[:2], "--iterations", "30", *SHORT[4:])
    results = Path(demo_environ["nnUNet_results"])
    wait_for(results, "checkpoint_saved", 1)
    run, elsewhere = only_run(demo_environ), tmp_path / "moved"
    # While it trains.
    run.rename(elsewhere)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    shutil.rmtree(run, ignore_errors=True)
    (told,) = [e for e in events(elsewhere) if e["type"] == "run_failed"]
    assert "moved" in told["reason"]
    refused = ppgs("resume", elsewhere, "--no-tui", environ=demo_environ)
    assert refused.returncode == 4, refused.stderr
    assert f"NNUNET_RESULTS/{run.relative_to(results)}" in refused.stderr
    run.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.rename(run)
    process = start(demo_environ, "resume", str(run), "--no-tui")
    wait_for(results, "run_started", 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
