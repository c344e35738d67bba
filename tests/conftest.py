"""Fixtures that several rooms' tests share, markers, and how the suite is spread over processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ppgs.processes.temporary import choose_temporary_folder
from tests.helpers.commands import SHORT, Ppgs, Result, run_ppgs, start, wait_for
from tests.helpers.disks import LOOP, become_read_only, mounted, repaired
from tests.helpers.once import made_once

__all__ = ["SHORT", "Ppgs", "Result", "become_read_only", "mounted", "repaired", "run_ppgs"]


def _keep_to_own_cores() -> None:
    """Give each worker of the suite its own cores: the threads of two trainings would otherwise wait for each other.

    To be called before PyTorch is imported, which counts the cores once.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not hasattr(os, "sched_setaffinity") or not worker.startswith("gw"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if 1 < count <= len(cores):
        os.sched_setaffinity(0, cores[int(worker[2:]) :: count])


_keep_to_own_cores()


def _leave_the_users_settings_out() -> None:
    """Have results depend on nothing that a shell may have set; all processes of the tests inherit it."""
    # A socket's path has 108 characters.
    choose_temporary_folder()
    # Colours, and nnU-Net's switch that feeds every training to somebody's account.
    for name in ("FORCE_COLOR", "NO_COLOR", "nnUNet_wandb_enabled"):
        os.environ.pop(name, None)
    # Servers of tests are not behind a proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


_leave_the_users_settings_out()

# Its own limit is 200 ms for an example, which a busy machine exceeds.
settings.register_profile("ppgs", deadline=None)
settings.load_profile("ppgs")

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Fixtures and files whose tests take more than a few seconds: preparing, training, building, whole data sets.
_SLOW_FIXTURES = {"demo_root", "built", "root", "cascade", "slurm", "decathlon", "network"}
_SLOW_FILES = {
    *("test_bad_input.py", "test_benchmarks.py", "test_beside.py", "test_budget.py", "test_calibration.py"),
    *("test_cases.py", "test_changed_data.py", "test_compare.py", "test_configurations.py", "test_curriculum.py"),
    *("test_first_run.py", "test_following.py", "test_full_disk.py", "test_gpu_battery.py", "test_help.py"),
    *("test_malloc.py", "test_own_data.py", "test_plan_schedule.py", "test_ranks.py", "test_raw_data.py"),
    *("test_shipped_laws.py", "test_tracer.py", "test_trainers.py", "test_training_budget.py"),
}
_DISK_FIXTURES = {"small_disk", "big_disk", "failing_disk", "read_only", "disk"}
_SHELL_FILES = {"test_completion.py", "test_questions.py"}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers of `-n auto`: two for a whole suite, none for tests that are named on the command line."""
    return 2 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the markers; give tests that share a fixture of their module to one worker, so that it is made once."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        used = set(item.fixturenames)
        wanted = {
            "slow": used & _SLOW_FIXTURES or item.path.name in _SLOW_FILES,
            "disk": used & _DISK_FIXTURES,
            "slurm": "slurm" in used,
            "shell": item.path.name in _SHELL_FILES,
        }
        for name in (name for name, applies in wanted.items() if applies):
            item.add_marker(name)
        definitions = item._fixtureinfo.name2fixturedefs
        if any(found[-1].scope == "module" for found in definitions.values()):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=_order(items))


def _order(items: list[pytest.Item]) -> Callable[[pytest.Item], int]:
    """Long groups first, then long tests, then short ones: no worker waits for the other's last group."""

    def group(item: pytest.Item) -> str:
        return next((mark.args[0] for mark in item.iter_markers("xdist_group")), "")

    slow_groups = {group(item) for item in items if item.get_closest_marker("slow")} - {""}

    def order(item: pytest.Item) -> int:
        if group(item) in slow_groups:
            return 0
        return 1 if item.get_closest_marker("slow") else 2

    return order


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real Decathlon data and nnU-Net results, beside the checkout, if present."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data beside the checkout (../shared), which is not there")
    return SHARED


@pytest.fixture
def ppgs() -> Ppgs:
    return run_ppgs


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which `demo` is prepared, once for all tests, with an eighth of its network's channels.

    So most of a training's time is what tests are about, and checkpoints have 2 MB instead of 60.
    """

    def prepare(root: Path) -> None:
        done = run_ppgs("prepare", "demo", "--root", root)
        assert done.returncode == 0, done.stderr
        (path,) = root.glob("nnUNet_preprocessed/*/nnUNetPlans.json")
        plans = json.loads(path.read_text())
        for configuration in plans["configurations"].values():
            arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
            if "features_per_stage" in arguments:
                arguments["features_per_stage"] = [channels // 8 for channels in arguments["features_per_stage"]]
        path.write_text(json.dumps(plans))

    return made_once(tmp_path_factory, "demo", prepare)


def _environ(demo_root: Path, results: Path) -> dict[str, str]:
    """nnU-Net's folders: the prepared demo, and results of their own."""
    return {
        "nnUNet_raw": str(demo_root / "nnUNet_raw"),
        "nnUNet_preprocessed": str(demo_root / "nnUNet_preprocessed"),
        "nnUNet_results": str(results),
    }


@pytest.fixture(scope="session")
def trained_demo(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold's folder of a short training of the demo from beginning to end. Read it only."""

    def train(folder: Path) -> None:
        done = run_ppgs("train", "demo", *SHORT, "--json", environ=_environ(demo_root, folder / "nnUNet_results"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "finished"

    (run,) = made_once(tmp_path_factory, "whole", train).glob("nnUNet_results/*/*/fold_*")
    return run


@pytest.fixture(scope="session")
def stopped_results(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnUNet_results with a training of the demo that SIGTERM stopped after four checkpoints. Read it only.

    It was trained in another folder, which is gone: what a copy of it needs is in the copy.
    """

    def train_and_stop(folder: Path) -> None:
        results = folder / "first" / "nnUNet_results"
        process = start(_environ(demo_root, results), "train", "demo", *SHORT)
        wait_for(results, "checkpoint_saved", 4)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        results.rename(folder / "nnUNet_results")
        results.parent.rmdir()

    return made_once(tmp_path_factory, "stopped", train_and_stop) / "nnUNet_results"


@pytest.fixture
def demo_environ(demo_root: Path, tmp_path: Path) -> dict[str, str]:
    """nnU-Net's folders: the prepared demo, and results of this test alone."""
    return _environ(demo_root, tmp_path / "nnUNet_results")


@pytest.fixture
def stopped_run(stopped_results: Path, demo_environ: dict[str, str]) -> Path:
    """The fold's folder of a copy of the stopped training, in the results of this test alone."""
    results = Path(demo_environ["nnUNet_results"])
    shutil.copytree(stopped_results, results)
    (run,) = results.glob("*/*/fold_*")
    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    yield from mounted(tmp_path / "small", "size=8m")


@pytest.fixture
def big_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 megabytes: the demo's checkpoints, and little more."""
    yield from mounted(tmp_path / "big", "size=24m")


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate ext4 on a loop device; what made it fail is undone by `repaired`."""
    image, folder = tmp_path / "image", tmp_path / "failing"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    commands = (["mkfs.ext4", "-q", str(image)], [*LOOP, str(image), str(folder)])
    if not all(shutil.which(c[0]) and subprocess.run(c, capture_output=True).returncode == 0 for c in commands):
        pytest.skip("making and mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that no one may write to, not even root."""
    yield from mounted(tmp_path / "read-only", "size=1m", "ro")
