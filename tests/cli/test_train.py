"""The main job through the real command: train, stop, kill, resume, copy, predict."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import torch

from ppgs.schedule import Schedule, parse
from tests.helpers.commands import SHORT, Ppgs, processes_of, start, wait_for
from tests.helpers.runs import events, final_weights, leftovers, manifest, only_run


@pytest.fixture
def uninterrupted(trained_demo: Path) -> Path:
    return trained_demo


def test_a_runs_folder_manifest_and_events(uninterrupted: Path) -> None:
    m = manifest(uninterrupted)
    assert m["status"] == "finished"
    assert m["name"] == "demo-efficiency-fold0"
    assert m["versions"]["nnunetv2"].startswith("2.8")
    frozen = parse((uninterrupted / "ppgs" / "schedule.yaml").read_text())
    assert isinstance(frozen, Schedule)
    assert (m["seed"], m["device"], m["schedule_hash"]) == (0, "cpu", frozen.digest)
    assert "Using device: cpu" in (uninterrupted / "ppgs" / "train.log").read_text()
    records = events(uninterrupted)
    assert [r["seq"] for r in records] == list(range(len(records)))
    by_type: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        assert record["v"] == 1 and record["time"] > 0
        by_type.setdefault(record["type"], []).append(record)
    assert len(by_type["stage_started"]) == len(by_type["epoch_finished"]) == 10
    assert next(s["patch_size"] for s in by_type["stage_started"]) == [8, 8, 8]
    assert [s["patch_size"] for s in by_type["stage_started"]][-1] == [32, 32, 32]
    surface = {"epoch", "stage", "train_loss", "val_loss", "pseudo_dice", "ema_dice", "learning_rate", "seconds"}
    surface |= {"data_wait_seconds", "validation_seconds", "peak_memory_bytes", "energy_wh"}
    assert surface <= by_type["epoch_finished"][0].keys()
    assert set(by_type["validation_finished"][0]["dice"]) == {"organ", "lesion"}
    assert len(by_type["run_finished"]) == 1
    costs = by_type["run_started"][0]["stages"]
    assert [c["flops_per_iteration"] for c in costs] == sorted(c["flops_per_iteration"] for c in costs)
    assert all(c["memory_bytes"] > 0 for c in costs)
    assert leftovers(uninterrupted) == []
    assert (uninterrupted / "validation" / "summary.json").is_file()
    assert (uninterrupted / "progress.png").is_file()


def test_killed_at_random_instants_it_ends_with_the_same_weights(
    uninterrupted: Path, demo_environ: dict[str, str]
) -> None:
    rng = random.Random(20261123)
    process = start(demo_environ, "train", "demo", *SHORT)
    results = Path(demo_environ["nnUNet_results"])
    for kill in range(3):
        wait_for(results, "run_started", kill + 1)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.communicate()
        process = start(demo_environ, "resume", "--no-tui")
    _out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    run = only_run(demo_environ)
    assert manifest(run)["status"] == "finished"
    ours, theirs = final_weights(run), final_weights(uninterrupted)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert leftovers(run) == []
    assert processes_of(run) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_with_a_checkpoint_and_exit_code_75(
    demo_environ: dict[str, str], number: signal.Signals
) -> None:
    process = start(demo_environ, "train", "demo", *SHORT[:2], "--iterations", "2000", *SHORT[4:], "--workers", "1")
    wait_for(Path(demo_environ["nnUNet_results"]), "iterations")
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert "ppgs resume demo-efficiency-fold0" in err
    run = only_run(demo_environ)
    assert manifest(run)["status"] == "stopped"
    own = torch.load(run / "checkpoint_latest.pth", weights_only=True)["ppgs"]
    assert own["iteration"] == len(own["losses"]) > 0
    assert leftovers(run) == []
    assert processes_of(run) == []


def validating(finished: Path, environ: dict[str, str]) -> tuple[subprocess.Popen[str], psutil.Process, Path]:
    """A resumed run in its final validation, whose workers are there: command, training process, the fold's folder."""
    results = Path(environ["nnUNet_results"])
    shutil.copytree(finished.parents[2], results)
    run = only_run(environ)
    (run / "ppgs" / "run.json").write_text(json.dumps(manifest(run) | {"status": "stopped"}))
    (run / "ppgs" / "train.log").write_text("")
    begun = len([e for e in events(run) if e["type"] == "validation_started"])
    process = start(environ, "resume", str(run), "--no-tui")
    wait_for(results, "validation_started", begun + 1)
    # Its forked workers have the same command line.
    training = min(processes_of(run, "ppgs.nnunet.process"), key=lambda one: one.create_time())
    while process.poll() is None and not training.children():
        time.sleep(0.02)
    return process, training, run


def test_a_signal_to_all_processes_stops_the_validation_too(uninterrupted: Path, demo_environ: dict[str, str]) -> None:
    """Send the signal to all processes, as Slurm does: the pool must not wait for a worker that ended of it."""
    process, training, run = validating(uninterrupted, demo_environ)
    for one in (training, *training.children(recursive=True)):
        one.send_signal(signal.SIGUSR2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert manifest(run)["status"] == "stopped"
    assert events(run)[-1]["type"] == "run_stopped"
    assert not (run / "ppgs" / "lock").exists()
    assert "Traceback" not in (run / "ppgs" / "train.log").read_text()


def test_killed_workers_stop_the_validation_and_their_case_is_named(
    uninterrupted: Path, demo_environ: dict[str, str]
) -> None:
    """Kill workers as the kernel does when memory runs out."""
    process, training, run = validating(uninterrupted, demo_environ)
    workers = training.children()
    assert workers
    for one in workers:
        one.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "SIGKILL" in err and "demo_" in err and "Traceback" not in err
    assert manifest(run)["status"] == "stopped" and leftovers(run) == []


def test_a_copy_elsewhere_is_resumed_there(
    uninterrupted: Path, stopped_results: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo_root, other)
    shutil.copytree(stopped_results, other / "nnUNet_results", dirs_exist_ok=True)
    done = ppgs("resume", "demo-efficiency-fold0", "--root", other, "--no-tui")
    assert done.returncode == 0, done.stderr
    (run,) = (other / "nnUNet_results").glob("*/*/fold_0")
    ours, theirs = final_weights(run), final_weights(uninterrupted)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_a_running_run_is_locked_and_a_finished_one_is_finished(
    uninterrupted: Path, demo_environ: dict[str, str], ppgs: Ppgs
) -> None:
    done = ppgs("resume", uninterrupted)
    assert done.returncode == 4
    assert "finished" in done.stderr
    process = start(demo_environ, "train", "demo", *SHORT[:2], "--iterations", "2000", *SHORT[4:])
    try:
        wait_for(Path(demo_environ["nnUNet_results"]), "iterations")
        for command in (
            ("resume", "demo-efficiency-fold0"),
            ("train", "demo", *SHORT),
            ("train", "demo", "--overwrite"),
        ):
            refused = ppgs(*command, environ=demo_environ)
            assert refused.returncode == 4, refused.stderr
            assert "held by process" in refused.stderr
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_damaged_checkpoint_is_told_by_name(demo_environ: dict[str, str], stopped_run: Path, ppgs: Ppgs) -> None:
    run = stopped_run
    checkpoint = run / "checkpoint_latest.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5000])
    for _ in range(2):
        done = ppgs("resume", run, "--no-tui", environ=demo_environ)
        assert done.returncode == 4, done.stderr
        assert "checkpoint_latest.pth" in done.stderr
        assert "Traceback" not in done.stderr
    checkpoint.unlink()
    done = ppgs("resume", run, "--no-tui", environ=demo_environ)
    assert done.returncode == 4
    assert "gone" in done.stderr


def test_a_changed_schedule_is_refused(demo_environ: dict[str, str], stopped_run: Path, ppgs: Ppgs) -> None:
    schedule = stopped_run / "ppgs" / "schedule.yaml"
    schedule.write_text(schedule.read_text().replace("epochs: 1\n", "epochs: 2\n", 1))
    done = ppgs("resume", "--no-tui", environ=demo_environ)
    assert done.returncode == 4
    assert "schedule.yaml" in done.stderr


def test_a_resume_rescales_only_when_asked_and_says_what_it_does(
    demo_environ: dict[str, str], stopped_run: Path, ppgs: Ppgs
) -> None:
    run = stopped_run
    schedule = (run / "ppgs" / "schedule.yaml").read_text()
    refused = ppgs("resume", "--epochs", "5", "--no-tui", environ=demo_environ)
    assert refused.returncode == 2, refused.stderr
    assert "give at least 10" in refused.stderr
    assert (run / "ppgs" / "schedule.yaml").read_text() == schedule
    done = ppgs("resume", "--epochs", "14", "--no-tui", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert "10 epochs become 14" in done.stderr
    rates = {e["epoch"]: e["learning_rate"] for e in events(run) if e["type"] == "epoch_finished"}
    assert sorted(rates) == list(range(14))
    assert rates[2] == pytest.approx(0.01 * (1 - 2 / 10) ** 0.9)
    assert rates[13] == pytest.approx(0.01 * (1 - 13 / 14) ** 0.9)
    first = min(e for e in rates if rates[e] == pytest.approx(0.01 * (1 - e / 14) ** 0.9) and e > 0)
    assert f"learning rate is {rates[first]:.3g} instead of {0.01 * (1 - first / 10) ** 0.9:.3g}" in done.stderr
    patches = [e["patch_size"] for e in events(run) if e["type"] == "stage_started"]
    assert sorted(patches) == patches and len({tuple(p) for p in patches}) == 10


def test_a_resume_knows_other_splits_other_versions_and_a_log_that_disagrees(
    demo_environ: dict[str, str], stopped_run: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    prepared = tmp_path / "nnUNet_preprocessed"
    shutil.copytree(demo_environ["nnUNet_preprocessed"], prepared)
    environ = {**demo_environ, "nnUNet_preprocessed": str(prepared)}
    run = stopped_run
    splits = prepared / "Dataset999_Demo" / "splits_final.json"
    whole = splits.read_text()
    splits.write_text(json.dumps(list(reversed(json.loads(whole)))))
    refused = ppgs("resume", "--no-tui", environ=environ)
    assert refused.returncode == 4, refused.stderr
    assert "splits_final.json" in refused.stderr
    splits.write_text(whole)
    changed = manifest(run)
    changed["versions"]["nnunetv2"] = "2.7.0"
    (run / "ppgs" / "run.json").write_text(json.dumps(changed))
    log = run / "ppgs" / "events.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(x for x in lines if '"epoch_finished"' not in x) + "\n")
    done = ppgs("resume", "--no-tui", environ=environ)
    assert done.returncode == 0, done.stderr
    told = [e["message"] for e in events(run) if e["type"] == "warning"]
    assert any("2.7.0" in m and "2.8" in m for m in told)
    assert any("the log knows 0 epochs" in m and "the checkpoint counts" in m for m in told)


def test_a_full_disk_stops_resumable_and_a_resume_with_room_ends_with_the_same_weights(
    uninterrupted: Path, demo_environ: dict[str, str], big_disk: Path, ppgs: Ppgs
) -> None:
    environ = {**demo_environ, "nnUNet_results": str(big_disk / "nnUNet_results")}
    process = start(environ, "train", "demo", *SHORT)
    wait_for(big_disk / "nnUNet_results", "checkpoint_saved", 3)
    filler = big_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            pass
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "make room" in err and "Traceback" not in err
    run = only_run(environ)
    assert manifest(run)["status"] == "stopped"
    assert events(run)[-1]["type"] == "run_stopped"
    torch.load(run / "checkpoint_latest.pth", weights_only=True)
    assert leftovers(run) == []
    filler.unlink()
    done = ppgs("resume", run, "--no-tui", environ=environ)
    assert done.returncode == 0, done.stderr
    ours, theirs = final_weights(run), final_weights(uninterrupted)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_runs_lists_and_an_existing_run_is_not_overwritten(uninterrupted: Path, ppgs: Ppgs) -> None:
    root = uninterrupted.parents[3]
    listed = json.loads(ppgs("runs", "--root", root, "--json").stdout)
    assert [(r["name"], r["status"], r["epoch"]) for r in listed] == [("demo-efficiency-fold0", "finished", 10)]
    table = ppgs("runs", "--root", root).stdout
    assert "demo-efficiency-fold0" in table and "finished" in table
    again = ppgs("train", "demo", "--root", root)
    assert again.returncode == 4
    assert "--overwrite" in again.stderr


class TestPredict:
    def geometry(self, path: Path) -> tuple[Any, ...]:
        image = sitk.ReadImage(str(path))
        return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()

    @pytest.fixture
    def images(self, demo_root: Path, tmp_path: Path) -> Path:
        """Two of the demo's test images with a geometry of their own, in the Decathlon's naming."""
        folder = tmp_path / "images"
        folder.mkdir()
        for path in sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())[:2]:
            image = sitk.ReadImage(str(path))
            image.SetOrigin((5.0, -7.0, 11.0))
            image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
            image.SetSpacing((1.0, 1.1, 0.9))
            sitk.WriteImage(image, str(folder / path.name.replace("_0000", "")))
        return folder

    def test_a_folder_in_both_namings_and_with_stock_nnunet(
        self, uninterrupted: Path, images: Path, tmp_path: Path, demo_root: Path, ppgs: Ppgs
    ) -> None:
        done = ppgs("predict", uninterrupted, "-i", images, "-o", tmp_path / "a", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        numbered = tmp_path / "numbered"
        numbered.mkdir()
        for path in images.iterdir():
            shutil.copy(path, numbered / path.name.replace(".nii.gz", "_0000.nii.gz"))
        done = ppgs("predict", uninterrupted.parent, "-i", numbered, "-o", tmp_path / "b", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        stock = subprocess.run(
            [
                shutil.which("nnUNetv2_predict_from_modelfolder", path=str(Path(sys.executable).parent)) or "missing",
                *("-i", numbered, "-o", tmp_path / "stock", "-m", uninterrupted.parent, "-f", "0"),
                *("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "nnUNet_results": str(uninterrupted.parents[2]), "nnUNet_n_proc_DA": "1"},
        )
        assert stock.returncode == 0, stock.stderr
        for path in images.iterdir():
            voxels = [
                sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / d / path.name))) for d in ("a", "b", "stock")
            ]
            assert (voxels[0] == voxels[1]).all() and (voxels[0] == voxels[2]).all()
            assert np.allclose(
                np.concatenate([np.ravel(g) for g in self.geometry(tmp_path / "a" / path.name)]),
                np.concatenate([np.ravel(g) for g in self.geometry(path)]),
            )
        assert {p.name for p in (tmp_path / "a").iterdir()} == {p.name for p in images.iterdir()}

    def test_one_file(self, uninterrupted: Path, images: Path, tmp_path: Path, ppgs: Ppgs) -> None:
        source = next(images.iterdir())
        done = ppgs("predict", uninterrupted, "-i", source, "-o", tmp_path / "out" / "seg.nii.gz", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["seg.nii.gz"]

    def test_bad_images_are_named_and_the_others_segmented(
        self, uninterrupted: Path, images: Path, tmp_path: Path, ppgs: Ppgs
    ) -> None:
        good = next(images.iterdir())
        (images / "torn.nii.gz").write_bytes(good.read_bytes()[:2000])
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(good)))
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([array, array])), str(images / "two.nii.gz"))
        array[0, 0, 0] = np.nan
        sitk.WriteImage(sitk.GetImageFromArray(array), str(images / "nan.nii.gz"))
        done = ppgs("predict", uninterrupted, "-i", images, "-o", tmp_path / "out", "--device", "cpu")
        assert done.returncode == 2
        assert all(name in done.stderr for name in ("torn.nii.gz", "two.nii.gz", "nan.nii.gz"))
        assert "Traceback" not in done.stderr
        assert len(list((tmp_path / "out").iterdir())) == 2

    def test_channels_of_another_number_are_refused(
        self, uninterrupted: Path, images: Path, tmp_path: Path, ppgs: Ppgs
    ) -> None:
        for path in list(images.iterdir()):
            for channel in range(2):
                shutil.copy(path, images / path.name.replace(".nii.gz", f"_{channel:04d}.nii.gz"))
            path.unlink()
        done = ppgs("predict", uninterrupted, "-i", images, "-o", tmp_path / "out", "--device", "cpu")
        assert done.returncode == 2
        assert "0000, 0001" in done.stderr
        empty = tmp_path / "empty"
        empty.mkdir()
        assert ppgs("predict", uninterrupted, "-i", empty, "-o", tmp_path / "out").returncode == 2
        assert ppgs("predict", "no-such-run", "-i", images, "-o", tmp_path / "out").returncode == 4
