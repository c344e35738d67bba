"""Checks of the machine and of dataset.json, on stand-ins."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from ppgs.doctor import machine
from ppgs.doctor.description import check_regions, check_sides, check_values
from ppgs.doctor.findings import names_text
from ppgs.doctor.splits import check_splits
from ppgs.plans import Dataset


def dataset(labels: dict[str, int | tuple[int, ...]], order: tuple[int, ...] | None = None) -> Dataset:
    return Dataset(channels=("CT",), labels=labels, file_ending=".nii.gz", regions_class_order=order)


@pytest.mark.parametrize(
    ("labels", "order", "check", "level", "said"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, "labels", "ok", "2 foreground classes"),
        ({"background": 0, "a": 1, "b": 3}, None, "labels", "error", "2 missing"),
        ({"a": 1}, None, "labels", "error", "background"),
        ({"background": 0, "a": 1, "b": 1}, None, "labels", "error", "same value 1"),
        ({"background": 0, "a": 2, "ignore": 1}, None, "labels", "error", "ignore label"),
        ({"background": 0, "a": (1, 2), "b": (2,)}, None, "regions", "error", "is missing"),
        ({"background": 0, "a": (1, 2), "b": (2,)}, (1,), "regions", "error", "1 entries"),
        ({"background": 0, "a": (1, 2), "b": (2,)}, (1, 2), "regions", "ok", "2 regions"),
        ({"background": 0, "a": (1, 2), "b": (2,)}, (2, 1), "regions", "error", "writes 1 for 'b'"),
        ({"background": 0, "a": (1, 2), "b": (2,)}, (2, 2), "regions", "error", "value 1 would be written as 2"),
        ({"background": 0, "b": (2,), "a": (1, 2)}, (2, 1), "regions", "error", "'b' could never be predicted"),
        ({"background": 0, "a": (1, 2), "b": (2, 3)}, (1, 3), "regions", "warning", "segmentation of a cannot"),
        (
            {"background": 0, "kidney_left": 1, "kidney_right": 2},
            None,
            "sides",
            "warning",
            "kidney_left / kidney_right",
        ),
        ({"background": 0, "spleen": 1, "kidney_right": 2}, None, "sides", "ok", "no classes"),
    ],
)
def test_labels(
    labels: dict[str, int | tuple[int, ...]], order: tuple[int, ...] | None, check: str, level: str, said: str
) -> None:
    given = dataset(labels, order)
    findings = (check_values(given), *check_regions(given), check_sides(given))
    (finding,) = [f for f in findings if f.check == check]
    assert finding.level == level
    assert said in finding.what
    assert (finding.remedy == "") == (level == "ok")


@pytest.mark.parametrize(
    ("fold", "said"),
    [
        ({"train": ["a", "b"], "val": ["b"]}, "b is trained on and validated"),
        ({"train": ["a", "b", "x"], "val": ["c"]}, "x is not in the dataset"),
        ({"train": ["a", "b"], "val": []}, "without"),
    ],
)
def test_splits(fold: dict[str, list[str]], said: str) -> None:
    good = {"train": ["a", "b"], "val": ["c"]}
    assert [f.level for f in check_splits([good], ["a", "b", "c"])] == ["ok"]
    (finding,) = check_splits([good, fold], ["a", "b", "c"])
    assert (finding.level, finding.where) == ("error", "splits_final.json: fold 1")
    assert said in finding.what


def test_a_quota_is_named_and_the_machines_load_is_not_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.getloadavg", lambda: (60.0, 60.0, 60.0))
    finding = machine.check_cpus(4, 3.5)
    assert finding.level == "ok"
    assert "4 CPUs: the quota of the container or job is worth 3.5" in finding.what
    assert machine.check_cpus(4, None).level == machine.check_cpus(4, 64.0).level == "warning"


@pytest.mark.parametrize(("free", "level"), [(64 << 20, "error"), (1 << 30, "warning"), (8 << 30, "ok")])
def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    finding = machine.check_shared_memory(tmp_path)
    assert finding.level == level
    assert ("--shm-size" in finding.remedy) == (level != "ok")


def test_folders_that_cannot_be_written_and_full_disks(small_disk: Path, read_only: Path) -> None:
    (finding, *_) = machine.check_folders({"nnUNet_raw": read_only / "a" / "b"})
    assert (finding.level, finding.what) == ("error", "cannot be written")
    (full,) = machine.check_folders({"nnUNet_results": small_disk / "not" / "yet"})
    assert (full.level, full.check) == ("error", "nnUNet_results")
    assert "make room" in full.remedy
    speed = machine.check_write_speed(small_disk)
    assert (speed.level, speed.what) == ("error", "cannot be measured: No space left on device")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "folder", "level"),
    [
        ("nnUNet_raw", "", "warning"),
        ("nnUNet_preprocessed", "", "warning"),
        ("nnUNet_preprocessed", "not/yet", "error"),
        ("nnUNet_results", "", "error"),
    ],
)
@pytest.mark.parametrize("writable", [True, False])
def test_data_that_are_prepared_serve_without_room_and_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, level: str, writable: bool
) -> None:
    monkeypatch.setattr(machine, "can_write", lambda _: writable)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 20, 0, 1 << 20))
    (finding,) = machine.check_folders({name: tmp_path / folder})
    assert (finding.level, finding.remedy != "") == (level, True)
    assert ("can be used" in finding.what) == (level == "warning")


def test_a_results_folder_of_another_user_hides_no_other_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"

    def refuse(path: Path) -> bool:
        if path.is_relative_to(closed) and path != closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return os.path.isdir(path)  # noqa: PTH112

    def scan(path: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    monkeypatch.setattr(os, "scandir", scan)
    (finding,) = machine.check_folders({"nnUNet_results": closed / "results"})
    assert (finding.level, finding.what) == ("error", "permission denied")


@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [(256, -1, "ulimit -n 4096"), (256, 4096, "ulimit -n 4096"), (1024, 1024, "an administrator"), (4096, 4096, "")],
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, said: str) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, hard))
    finding = machine.check_open_files()
    assert (finding.level == "ok") == (said == "")
    assert finding.remedy.startswith(said)


def test_write_speed_is_told(tmp_path: Path) -> None:
    finding = machine.check_write_speed(tmp_path, 1 << 20)
    assert finding.data["bytes_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert machine.check_compiler().level == "warning"


def test_names_are_written_out() -> None:
    assert names_text(["a\nb", "c\x1b[31m", "d\udce9", "ä ö"]) == "a\\nb, c\\x1b[31m, d\\udce9, ä ö"


class TestGpus:
    """Two GPUs, the first of them busy."""

    @pytest.fixture
    def nvml(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        error = type("NVMLError", (Exception,), {})
        used = {0: 20, 1: 1}

        def memory(handle: int) -> SimpleNamespace:
            if handle not in used:
                raise error("Insufficient Permissions")
            return SimpleNamespace(total=24 << 30, free=(24 - used[handle]) << 30)

        nvml = SimpleNamespace(
            NVMLError=error,
            used=used,
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlSystemGetDriverVersion=lambda: "580.1",
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetHandleByIndex=int,
            nvmlDeviceGetName=lambda _: "NVIDIA GeForce RTX 3090",
            nvmlDeviceGetMemoryInfo=memory,
        )
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return nvml

    @pytest.mark.usefixtures("nvml")
    def test_the_remedy_for_a_busy_gpu_helps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        busy = machine.check_driver()
        assert busy.level == "warning" and "CUDA_VISIBLE_DEVICES" in busy.remedy
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        free = machine.check_driver()
        assert free.level == "ok" and free.what.startswith("NVIDIA GeForce RTX 3090 (24.0 GiB, 23.0 GiB free)")

    def test_memory_that_the_driver_does_not_tell_is_left_out(self, nvml: SimpleNamespace) -> None:
        """As of a GPU in MIG mode, which only its owner may ask."""
        nvml.used.clear()
        finding = machine.check_driver()
        assert finding.level == "ok"
        assert finding.what == "NVIDIA GeForce RTX 3090, NVIDIA GeForce RTX 3090; driver 580.1"
