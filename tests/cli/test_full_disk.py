"""Full, read-only and broken disks as real file systems: no truncated file counts as complete."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc2
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.dataset_conversion.convert_MSD_dataset import split_4d_nifti

from ppgs.errors import DiskFull
from ppgs.nnunet.images.nifti import check_nifti, check_written
from ppgs.runs.disk_space import telling_full_disk
from tests.cli.test_bad_input import decathlon as small_task
from tests.helpers.commands import SHORT, Ppgs, processes_of, start, wait_for
from tests.helpers.disks import become_read_only, mounted, repaired
from tests.helpers.runs import events, final_weights, leftovers, manifest, only_run

DATASET = "Dataset999_Demo"
decathlon = small_task
Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes the one small file system of a test."""
    made: list[Iterator[Path]] = []

    def make(size: str) -> Path:
        made.append(mounted(tmp_path / "disk", f"size={size}"))
        return next(made[-1])

    yield make
    for one in made:
        next(one, None)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Take all room but this many bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))
    return filler


def refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 75, done.stderr
    assert "no room" in done.stderr or " free" in done.stderr
    assert "make room" in done.stderr
    assert "Traceback" not in done.stderr


def cases_of(folder: Path) -> dict[str, np.ndarray]:
    """The preprocessed cases that count as whole, opened."""
    return {p.stem: blosc2.open(str(p.with_suffix(".b2nd")))[:] for p in folder.glob("*.pkl")}


def test_preprocessing(disk: Disk, demo_root: Path, demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    folder = disk("3m")
    environ = {**demo_environ, "nnUNet_preprocessed": str(folder)}
    refused(ppgs("prepare", "demo", environ=environ))
    own = folder / DATASET / "nnUNetPlans_3d_fullres"
    before = cases_of(own)
    assert [p for p in folder.rglob("*") if ".part-" in p.name or "staging" in p.name or p.name == "lock"] == []
    refused(ppgs("train", "demo", *SHORT, environ=environ))
    remount(folder, "size=20m")
    done = ppgs("prepare", "demo", environ=environ)
    assert done.returncode == 0, done.stderr
    whole = cases_of(demo_root / "nnUNet_preprocessed" / DATASET / "nnUNetPlans_3d_fullres")
    after = cases_of(own)
    assert 0 < len(before) < len(whole) == len(after)
    assert all((after[name] == whole[name]).all() for name in whole)
    assert all((before[name] == whole[name]).all() for name in before)


def test_making_the_raw_dataset(disk: Disk, ppgs: Ppgs) -> None:
    root = disk("1m")
    refused(ppgs("prepare", "demo", "--root", root))
    assert not (root / "nnUNet_raw" / DATASET).exists()


def test_channels_that_are_split(disk: Disk, decathlon: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    content = json.loads((decathlon / "dataset.json").read_text()) | {"modality": {"0": "T1", "1": "T2"}}
    (decathlon / "dataset.json").write_text(json.dumps(content))
    for path in (decathlon / "imagesTr").iterdir():
        one = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.JoinSeries([one, one * 3]), str(path))
    root, raw = tmp_path / "root", disk("500k")
    environ = {"nnUNet_raw": str(raw), "nnUNet_preprocessed": str(root / "p"), "nnUNet_results": str(root / "r")}
    refused(ppgs("prepare", decathlon, environ=environ))
    assert list(raw.iterdir()) == []
    remount(raw, "size=20m")
    done = ppgs("prepare", decathlon, environ=environ)
    assert done.returncode == 0, done.stderr
    assert len(list((raw / "Dataset007_Small" / "imagesTr").iterdir())) == 12
    # ITK, which splits them, writes them without a word on a full disk.
    out = raw / "out"
    out.mkdir()
    fill(raw, 64 << 10)
    with pytest.raises(DiskFull), telling_full_disk(raw, "remedy"):
        split_4d_nifti(str(path), str(out))
        assert len(list(out.iterdir())) == 2
        check_written(*out.iterdir())


@pytest.mark.parametrize(
    ("leave", "also"), [(0, ("--save-probabilities",)), (20_000, ("--save-probabilities",)), (8192, ())]
)
def test_prediction(
    disk: Disk, trained_demo: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs, leave: int, also: tuple[str, ...]
) -> None:
    images = demo_root / "nnUNet_raw" / DATASET / "imagesTs"
    out = disk("1m")
    filler = fill(out, leave)
    command = ("predict", trained_demo, "-i", images, "-o", out, "--device", "cpu", *also)
    done = ppgs(*command)
    refused(done)
    assert "--continue" in done.stderr
    assert {p.name for p in out.iterdir() if p.name.startswith(".")} == set()
    early = {p.name for p in out.glob("*.nii.gz")}
    assert all(check_nifti(out / name) is None for name in early)
    assert len(early) < len(list(images.iterdir()))
    filler.unlink()
    remount(out, "size=20m")
    done = ppgs(*command, "--continue")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in out.glob("*.nii.gz")} >= early
    assert len(list(out.glob("*.nii.gz"))) == len(list(images.iterdir()))
    assert len(list(out.glob("*.npz"))) == (len(list(images.iterdir())) if also else 0)
    for path in out.glob("*.nii.gz"):
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).shape == (32, 32, 32)


def test_validation(disk: Disk, trained_demo: Path, demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    """Validation on a full disk: no figures from truncated segmentations."""
    results = disk("220m") / "nnUNet_results"
    shutil.copytree(trained_demo.parents[2], results)
    run = results / trained_demo.relative_to(trained_demo.parents[2])
    (run / "checkpoint_best.pth").unlink()
    summary = run / "validation" / "summary.json"
    expected = json.loads(summary.read_text())["foreground_mean"]
    shutil.rmtree(run / "validation")
    before = manifest(run)
    (run / "ppgs" / "run.json").write_text(json.dumps(before | {"status": "stopped"}))
    environ = {**demo_environ, "nnUNet_results": str(results)}
    # It exists by then: a full disk has no room for a new file.
    fill(results.parent, shutil.disk_usage(results.parent).free)
    process = start(environ, "resume", str(run), "--no-tui")
    wait_for(results, "validation_started", 2)
    # A quick validation would be over before the disk is full.
    training = psutil.Process(process.pid).children(recursive=True)
    for one in training:
        one.suspend()
    filler = fill(results.parent, 0)
    for one in training:
        one.resume()
    out, err = process.communicate(timeout=300)
    refused(subprocess.CompletedProcess([], process.returncode, out, err))
    assert not summary.exists()
    filler.unlink()
    done = ppgs("resume", run, "--no-tui", environ=environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(summary.read_text())["foreground_mean"] == expected


def test_a_stopped_run_on_a_disk_without_any_room(
    disk: Disk, stopped_run: Path, demo_environ: dict[str, str], ppgs: Ppgs
) -> None:
    """Not even the lock can be written, nor a line in the log."""
    results = disk("220m") / "nnUNet_results"
    shutil.copytree(stopped_run.parents[2], results)
    (run,) = results.glob("*/*/fold_0")
    before = manifest(run)
    fill(results.parent, 0)
    environ = {**demo_environ, "nnUNet_results": str(results)}
    refused(ppgs("resume", run, "--no-tui", environ=environ))
    refused(ppgs("validate", run, "--checkpoint", "latest", environ=environ))
    assert manifest(run) == before
    assert list((run / "ppgs").glob("lock*")) == []


def break_down(folder: Path) -> None:
    """Make all reads and writes fail and drop data not yet fsynced, as when a disk is pulled."""
    shut_down, without_the_journal = 0x8004587D, 2
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, shut_down, struct.pack("I", without_the_journal))
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    ("fail", "told"), [(become_read_only, "Read-only file system"), (break_down, "Input/output error")]
)
def test_a_file_system_that_fails_while_it_trains(
    failing_disk: Path,
    trained_demo: Path,
    demo_environ: dict[str, str],
    ppgs: Ppgs,
    fail: Callable[[Path], None],
    told: str,
) -> None:
    environ = {**demo_environ, "nnUNet_results": str(failing_disk)}
    process = start(environ, "train", "demo", *SHORT)
    wait_for(failing_disk, "checkpoint_saved", 3)
    run = only_run(environ)
    fail(failing_disk)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert told in err and str(run) in err and "ppgs resume" in err
    assert "Traceback" not in err
    assert processes_of(run) == []
    if fail is become_read_only:
        done = ppgs("resume", run, "--no-tui", environ=environ)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr
        return
    repaired(failing_disk)
    done = ppgs("resume", run, "--no-tui", environ=environ)
    assert done.returncode == 0, done.stderr
    assert [e["epoch"] for e in events(run) if e["type"] == "run_started"][-1] >= 3
    ours, theirs = final_weights(run), final_weights(trained_demo)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert leftovers(run) == []


def test_prepared_cases_that_can_no_longer_be_read(
    failing_disk: Path, demo_root: Path, demo_environ: dict[str, str]
) -> None:
    shutil.copytree(demo_root / "nnUNet_preprocessed", failing_disk / "prepared")
    environ = {**demo_environ, "nnUNet_preprocessed": str(failing_disk / "prepared")}
    process = start(environ, "train", "demo", *SHORT, "--workers", "1")
    wait_for(Path(environ["nnUNet_results"]), "stage_started")
    break_down(failing_disk)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "Input/output error" in err and str(failing_disk) in err
    run = only_run(environ)
    assert manifest(run)["status"] == "stopped"
    assert torch.load(run / "checkpoint_latest.pth", weights_only=True)["ppgs"]["iteration"] >= 0


def test_no_room_for_checkpoints_is_told_before_the_training(
    disk: Disk, demo_environ: dict[str, str], ppgs: Ppgs
) -> None:
    results = disk("2m")
    environ = {**demo_environ, "nnUNet_results": str(results)}
    done = ppgs("train", "demo", *SHORT, environ=environ)
    refused(done)
    assert "checkpoints needs 2.0 MiB" in done.stderr
    (log,) = results.glob("*/*/fold_0/ppgs/events.jsonl")
    assert '"stage_started"' not in log.read_text()


def test_read_only_folders(
    disk: Disk, demo_environ: dict[str, str], demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    folder = disk("20m")
    shutil.copytree(demo_root / "nnUNet_preprocessed", folder, dirs_exist_ok=True)
    environ = {**demo_environ, "nnUNet_preprocessed": str(folder)}
    remount(folder, "ro")
    # What is whole serves as it is.
    done = ppgs("prepare", "demo", environ=environ)
    assert done.returncode == 0, done.stderr
    remount(folder, "rw")
    next((folder / DATASET / "nnUNetPlans_3d_fullres").glob("*.pkl")).unlink()
    remount(folder, "ro")
    for command in (("prepare", "demo"), ("train", "demo", *SHORT)):
        done = ppgs(*command, environ=environ)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr and str(folder) in done.stderr
        assert "Traceback" not in done.stderr
    done = ppgs("train", "demo", *SHORT, environ={**demo_environ, "nnUNet_results": str(folder / "results")})
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
