"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# As ppgs does in its own processes: beside other work, tests that train would take many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real Decathlon data and nnU-Net results, which lie beside the checkout where there are any."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data beside the checkout (../shared), which is not there")
    return SHARED


Result = subprocess.CompletedProcess[str]
Ppgs = Callable[..., Result]


def run_ppgs(*arguments: object, environ: dict[str, str] | None = None, timeout: float = 600) -> Result:
    """The real command in a real process."""
    return subprocess.run(
        [sys.executable, "-m", "ppgs", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "120", **(environ or {})},
    )


@pytest.fixture
def ppgs() -> Ppgs:
    return run_ppgs


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which `demo` is prepared, once for all tests."""
    root = tmp_path_factory.mktemp("demo")
    done = run_ppgs("prepare", "demo", "--root", root)
    assert done.returncode == 0, done.stderr
    return root


SHORT = ("--epochs", "10", "--iterations", "3", "--device", "cpu", "--no-energy", "--no-tui")


@pytest.fixture(scope="session")
def trained_demo(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold's folder of a short training of the demo from beginning to end. Read it only."""
    environ = {
        "nnUNet_raw": str(demo_root / "nnUNet_raw"),
        "nnUNet_preprocessed": str(demo_root / "nnUNet_preprocessed"),
        "nnUNet_results": str(tmp_path_factory.mktemp("whole") / "nnUNet_results"),
    }
    done = run_ppgs("train", "demo", *SHORT, "--json", environ=environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    (run,) = Path(environ["nnUNet_results"]).glob("*/*/fold_*")
    return run


@pytest.fixture
def demo_environ(demo_root: Path, tmp_path: Path) -> dict[str, str]:
    """nnU-Net's folders: the prepared demo, and results of this test alone."""
    return {
        "nnUNet_raw": str(demo_root / "nnUNet_raw"),
        "nnUNet_preprocessed": str(demo_root / "nnUNet_preprocessed"),
        "nnUNet_results": str(tmp_path / "nnUNet_results"),
    }


def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own; skips where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    yield from mounted(tmp_path / "small", "size=8m")


@pytest.fixture
def big_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 220 megabytes: the demo's checkpoints, and little more."""
    yield from mounted(tmp_path / "big", "size=220m")


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of its own on a loop device; what made it fail is undone by `repaired`."""
    image, folder = tmp_path / "image", tmp_path / "failing"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    commands = (["mkfs.ext4", "-q", str(image)], [*_LOOP, str(image), str(folder)])
    if not all(shutil.which(c[0]) and subprocess.run(c, capture_output=True).returncode == 0 for c in commands):
        pytest.skip("making and mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


_LOOP = ("mount", "-o", "loop,errors=remount-ro")


def become_read_only(folder: Path) -> None:
    """As ext4 does by itself when it finds an error on its disk; open files can no longer be written either."""
    source = subprocess.run(["findmnt", "-no", "SOURCE", str(folder)], capture_output=True, text=True, check=True)
    Path("/sys/fs/ext4", Path(source.stdout.strip()).name, "trigger_fs_error").write_text("1")


def repaired(folder: Path) -> None:
    """Mount the file system of `failing_disk` anew, as after a repair. Nobody may use it."""
    image = folder.with_name("image")
    subprocess.run(["umount", str(folder)], check=True)
    assert subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True).returncode < 4
    subprocess.run([*_LOOP, str(image), str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that nobody may write to, not even root."""
    yield from mounted(tmp_path / "read-only", "size=1m", "ro")
