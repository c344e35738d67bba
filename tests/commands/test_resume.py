"""Messages of `resume` for runs that it cannot continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands import monitor
from ppgs.commands.monitor import choose_runs
from ppgs.commands.resume import change_options, check_free, check_resumable, choose_run, rescale
from ppgs.errors import RunError
from ppgs.runs.folder import TRAINER, RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import find_run
from ppgs.schedule import Schedule, Stage, dump
from ppgs.tasks import Roots
from tests.helpers.made_runs import made


@pytest.mark.parametrize("epochs", [None, 2, 2000])
def test_a_finished_run_says_how_to_train_longer(tmp_path: Path, epochs: int | None) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "finished", trainer=f"{TRAINER}_efficiency")
    stages = (Stage(patch_size=(8, 8, 8), batch_size=2, epochs=7),)
    run.schedule.write_text(dump(Schedule(name="efficiency", iterations_per_epoch=3, stages=stages)))
    with pytest.raises(RunError, match="is finished") as caught:
        check_resumable(run, epochs)
    problem = caught.value.problems[0]
    assert "ppgs train" in problem.remedy and "--name" in problem.remedy
    if epochs is not None:
        assert "7 epochs" in problem.what and "--epochs" in problem.what
        assert f"--epochs {epochs}" in problem.remedy


def test_results_whose_dataset_is_a_link_are_in_their_place(tmp_path: Path) -> None:
    results = tmp_path / "nnUNet_results"
    run = RunFolder.place(results, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped", trainer=f"{TRAINER}_efficiency")
    dataset, target = results / "Dataset001_A", tmp_path / "on_another_disk"
    dataset.rename(target)
    dataset.symlink_to(target)
    found = find_run("A-efficiency-fold0", results)
    check_free(found, read_manifest(found))
    # By any path, also where the command's own nnUNet_results is another.
    for folder in (run.path, run.own, run.model):
        assert find_run(str(folder), results) == find_run(str(folder), tmp_path / "other") == found
    assert find_run(str(target / run.model.name), results) == found
    assert choose_runs([str(run.model)], tmp_path, {})[0] == [found]
    dataset.rename(results / "Dataset002_B")
    moved = find_run("A-efficiency-fold0", results)
    with pytest.raises(RunError, match="moved or renamed"):
        check_free(moved, read_manifest(moved))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        # Three folders apart, of which the results are the run's.
        ("mine/nnUNet_results", ("raw", "preprocessed", "mine/nnUNet_results")),
        ("copied/nnUNet_results", ("copied/nnUNet_raw", "copied/nnUNet_preprocessed", "copied/nnUNet_results")),
        ("trained", ("raw", "preprocessed", "trained")),
    ],
)
def test_monitor_and_resume_continue_a_run_with_the_same_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, expected: tuple[str, str, str]
) -> None:
    run = RunFolder.place(tmp_path / place, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped", trainer=f"{TRAINER}_efficiency")
    folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "mine/nnUNet_results"}
    environ = {name: str(tmp_path / folder) for name, folder in folders.items()}
    used: list[Roots] = []
    monkeypatch.setattr(monitor, "TrainingChild", lambda run, roots, **_: used.append(roots))
    runs, roots = monitor.choose_runs([str(run.path)], None, environ)
    monitor.RunControl(roots).resume(runs[0])
    assert used == [choose_run(str(run.path), None, environ)[1]] == [Roots(*(tmp_path / name for name in expected))]


def test_a_run_continues_with_the_options_that_are_given(tmp_path: Path) -> None:
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "stopped", trainer=f"{TRAINER}_efficiency")
    before = read_manifest(run).request
    change_options(run)
    assert read_manifest(run).request == before
    change_options(run, workers=0, loader_timeout=60.0, skip_nonfinite=True)
    change_options(run, gpus=2, restarts=3, as_prepared=True)
    changed = {"workers": 0, "loader_timeout": 60.0, "skip_nonfinite": True, "gpus": 2, "restarts": 3}
    assert read_manifest(run).request == before.model_copy(update={**changed, "as_prepared": True})


def test_epochs_are_not_changed_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Killed between the last epoch's checkpoint and the final one.
    run = RunFolder.place(tmp_path, "Dataset001_A", "efficiency", "nnUNetPlans", "3d_fullres", 0)
    made(run, "A-efficiency-fold0", "training", trainer=f"{TRAINER}_efficiency")
    stages = (Stage(patch_size=(8, 8, 8), batch_size=2, epochs=7),)
    run.schedule.write_text(dump(Schedule(name="efficiency", iterations_per_epoch=3, stages=stages)))
    run.checkpoint_latest.touch()
    content = {"current_epoch": 7, "logging": {"lrs": [0.01] * 7}}
    monkeypatch.setattr("ppgs.nnunet.checkpoints.files.load_checkpoint", lambda _: content)
    with pytest.raises(RunError, match="all epochs are trained"):
        rescale(run, 20)
