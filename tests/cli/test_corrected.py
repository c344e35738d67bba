"""A request that turns out wrong: a new run makes room for the corrected one, an older one stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.train.plan import create_run
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
from tests.helpers.commands import Ppgs


@pytest.mark.parametrize("is_new", [True, False])
def test_a_run_that_began_before_is_never_removed(tmp_path: Path, ppgs: Ppgs, is_new: bool) -> None:
    roots = Roots.under(tmp_path)
    run = create_run(TrainingRequest(task="demo", device="mps", energy=False), 0, roots)
    if not is_new:
        # As after a kill before the first checkpoint, and a move to a machine without the device.
        manifest = read_manifest(run)
        manifest.schedule_hash, manifest.status = "0123", "stopped"
        write_manifest(run, manifest)
    done = ppgs("resume", run.path, "--no-tui", "--root", tmp_path)
    assert done.returncode == 2, done.stderr
    assert run.manifest.is_file() is not is_new
