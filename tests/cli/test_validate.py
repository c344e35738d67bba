"""`validate`: repeats the final validation and leaves the run's status as it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ppgs.commands.validate import check_validatable
from ppgs.errors import NoCheckpoint, RunLocked
from ppgs.runs.folder import TRAINER, RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.state import RunState
from tests.helpers.commands import Ppgs
from tests.helpers.made_runs import made
from tests.helpers.runs import events, leftovers, manifest, only_run


@pytest.fixture
def run(trained_demo: Path, demo_environ: dict[str, str]) -> Path:
    results = Path(demo_environ["nnUNet_results"])
    model = results / trained_demo.parent.parent.name / trained_demo.parent.name
    shutil.copytree(trained_demo.parent, model)
    return only_run(demo_environ)


def test_by_the_final_checkpoint_it_is_what_the_training_wrote(
    run: Path, demo_environ: dict[str, str], ppgs: Ppgs
) -> None:
    summary = run / "validation" / "summary.json"
    before = json.loads(summary.read_text())
    summary.write_text("{}")
    done = ppgs("validate", run, "--json", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    after = json.loads(summary.read_text())
    assert after["foreground_mean"] == before["foreground_mean"] and after["mean"] == before["mean"]
    assert json.loads(done.stdout)["mean_dice"] == before["foreground_mean"]["Dice"]
    # nnU-Net's summary names the files.
    assert all(Path(case["prediction_file"]).is_file() for case in after["metric_per_case"])
    assert manifest(run)["status"] == "finished" and manifest(run)["pid"] is None
    state = RunState().apply_all(events(run))
    assert state.status == "finished" and state.mean_dice == before["foreground_mean"]["Dice"]
    assert leftovers(run) == [] and not (run / "ppgs" / "validating").exists()


def test_probabilities_are_written_of_a_run_that_was_trained_without(
    run: Path, demo_environ: dict[str, str], ppgs: Ppgs
) -> None:
    before = json.loads((run / "validation" / "summary.json").read_text())
    assert not list((run / "validation").glob("*.npz"))
    done = ppgs("validate", run, "--npz", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    cases = {p.name.removesuffix(".nii.gz") for p in (run / "validation").glob("*.nii.gz")}
    for ending in (".npz", ".pkl"):
        assert {p.stem for p in (run / "validation").glob(f"*{ending}")} == cases != set()
    after = json.loads((run / "validation" / "summary.json").read_text())
    assert after["foreground_mean"] == before["foreground_mean"] and after["mean"] == before["mean"]
    assert manifest(run)["request"]["npz"] is False


def test_by_the_best_checkpoint_it_replaces_nothing(run: Path, demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    files = {p: p.read_bytes() for p in (run / "validation").iterdir()}
    mean = RunState().apply_all(events(run)).mean_dice
    done = ppgs("validate", run, "--checkpoint", "best", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert "best checkpoint" in done.stdout
    assert {p: p.read_bytes() for p in (run / "validation").iterdir()} == files
    assert {p.name for p in (run / "validation_best").iterdir()} == {p.name for p in files}
    assert RunState().apply_all(events(run)).mean_dice == mean
    # What fails leaves the earlier result, and says why.
    summary = (run / "validation_best" / "summary.json").read_bytes()
    (run / "checkpoint_best.pth").write_bytes(b"cut off")
    failed = ppgs("validate", run, "--checkpoint", "best", environ=demo_environ)
    assert failed.returncode == 4 and "damaged" in failed.stderr and "Traceback" not in failed.stderr
    assert (run / "validation_best" / "summary.json").read_bytes() == summary
    assert manifest(run)["status"] == "finished" and RunState().apply_all(events(run)).status == "finished"


def test_a_missing_checkpoint_and_a_live_process_are_told(tmp_path: Path) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped", trainer=f"{TRAINER}_efficiency")
    with pytest.raises(NoCheckpoint, match="no best checkpoint"):
        check_validatable(run, "best")
    run.checkpoint_latest.touch()
    with pytest.raises(NoCheckpoint) as caught:
        check_validatable(run, "final")
    assert "--checkpoint latest" in caught.value.problems[0].remedy
    check_validatable(run, "latest")
    with Lock(run.lock), pytest.raises(RunLocked, match=str(os.getpid())):
        check_validatable(run, "latest")
