"""Trackers beside a training: they hang, fail and start again without touching it, and end with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ppgs.commands.trackers import TrackersBeside
from ppgs.commands.train.plan import create_run
from ppgs.errors import BadInput
from ppgs.runs.events import EventLog, read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
from ppgs.trackers import beside
from tests.conftest import SHORT, Ppgs
from tests.helpers.commands import processes_of
from tests.helpers.made_runs import made

Fake = Callable[[str, str], None]
# Heeds no signal that can be ignored, and has started a process by the time it hangs.
HANGS = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
open({pids!r}, "a").write(f"{{child.pid}}\\n")
time.sleep(1000)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a package in the place of a tracker's, in all processes started from here."""
    folder = tmp_path / "fakes"

    def make(tracker: str, code: str) -> None:
        (folder / tracker).mkdir(parents=True)
        (folder / tracker / "__init__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return make


def train_for(seconds: float) -> int:
    """Start a process that stands for a training, and return its number."""
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]).pid


def train_until(is_seen: Callable[[], bool]) -> int:
    """Start a process that stands for a training, which ends once something is seen, and return its number."""
    training = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def end() -> None:
        while not is_seen():
            time.sleep(0.05)
        training.communicate(b"\n")

    threading.Thread(target=end, daemon=True).start()
    return training.pid


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(is_so: Callable[[], bool]) -> bool:
    """Return whether something becomes true within a minute."""
    until = time.monotonic() + 60
    while not is_so() and time.monotonic() < until:
        time.sleep(0.1)
    return is_so()


def test_one_that_hangs_is_killed_soon_after_the_training(
    begun_run: RunFolder,
    fake: Fake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pids = tmp_path / "pids"
    fake("wandb", HANGS.format(pids=str(pids)))
    monkeypatch.setattr(beside, "GRACE_SECONDS", 1.0)
    beside.feed_beside(begun_run, train_until(lambda: pids.exists() and pids.read_text() != ""), ["wandb"])
    assert capsys.readouterr().out == "wandb: was killed because it was still running 1 s after the training\n"
    assert wait_until(lambda: not processes_of(begun_run.path, "feeder"))
    (child,) = map(int, pids.read_text().split())
    assert wait_until(lambda: is_gone(child))


def test_one_that_fails_is_started_again_and_each_problem_reported_once(
    begun_run: RunFolder, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("wandb", "raise ConnectionError('no network')")
    monkeypatch.setattr(beside, "_FIRST_PAUSE", 0.1)
    log = begun_run.trackers / "wandb.log"

    def has_failed_twice() -> bool:
        return log.exists() and log.read_text().count("Traceback") > 1

    beside.feed_beside(begun_run, train_until(has_failed_twice), ["wandb"])
    assert capsys.readouterr().out == "wandb: ConnectionError: no network\n"
    assert has_failed_twice()


def test_one_that_pauses_when_the_training_ends_is_started_once_more(
    begun_run: RunFolder, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would miss all that came since it failed, the result among it."""
    starts = tmp_path / "starts"
    fake("wandb", f"open({str(starts)!r}, 'a').write('x'); raise ConnectionError('no network')")
    monkeypatch.setattr(beside, "_FIRST_PAUSE", 3600.0)
    log = begun_run.trackers / "wandb.log"
    beside.feed_beside(begun_run, train_until(lambda: log.exists() and "Traceback" in log.read_text()), ["wandb"])
    assert starts.read_text() == "xx"


def test_one_whose_process_dies_is_reported(
    begun_run: RunFolder, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("mlflow", "import os; os.kill(os.getpid(), 9)")
    beside.feed_beside(begun_run, train_for(4), ["mlflow"])
    assert capsys.readouterr().out == "mlflow: its process was killed by signal 9\n"


def test_nothing_is_written_before_the_training_begins(tmp_path: Path) -> None:
    run = made(RunFolder(tmp_path / "fold_0"), "a", "preparing")
    with EventLog(run.events) as log:
        log.append("preparing", step="starting", done=0, total=0)
    beside.feed_beside(run, train_for(2), ["tensorboard"])
    assert not run.trackers.exists()


def test_it_ends_with_the_training_and_can_be_killed_before(begun_run: RunFolder, fake: Fake, tmp_path: Path) -> None:
    fake("wandb", HANGS.format(pids=str(tmp_path / "pids")))
    training = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    trackers = TrackersBeside(begun_run, ("wandb",), training.pid)
    while not (tmp_path / "pids").exists():
        time.sleep(0.1)
    trackers.kill()
    trackers.wait()
    until = time.monotonic() + 20
    while processes_of(begun_run.path, "feeder") and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes_of(begun_run.path, "feeder")
    training.kill()
    subprocess.run(["kill", *(tmp_path / "pids").read_text().split()], check=False)


def test_a_tracker_that_cannot_be_used_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppgs.trackers._is_installed", lambda _: False)
    with pytest.raises(BadInput, match="mlflow is not installed"):
        create_run(TrainingRequest(task="demo", log="mlflow"), 0, Roots.under(tmp_path))
    assert not list(tmp_path.rglob("run.json"))


def scalars(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run.trackers / "tensorboard" / read_manifest(run).name))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def losses(run: RunFolder) -> list[float]:
    return [record["train_loss"] for record in read_events(run.events) if record["type"] == "epoch_finished"]


def test_a_training_is_the_same_beside_a_tracker_that_hangs(
    ppgs: Ppgs, demo_environ: dict[str, str], trained_demo: Path, fake: Fake, tmp_path: Path
) -> None:
    """nnU-Net's own switch starts W&B, here a fake that hangs."""
    pytest.importorskip("tensorboard")
    fake(
        "wandb",
        HANGS.format(pids=str(tmp_path / "pids")).replace(
            "import", "if 'feeder' not in __import__('sys').argv[0]: raise ImportError\nimport", 1
        ),
    )
    done = ppgs("train", "demo", *SHORT, "--log", "tensorboard", environ={**demo_environ, "nnUNet_wandb_enabled": "1"})
    assert done.returncode == 0, done.stderr
    assert "wandb: was killed because it was still running 30 s after the training" in done.stderr
    assert "Traceback" not in done.stderr
    (path,) = Path(demo_environ["nnUNet_results"]).glob("*/*/fold_*")
    run = RunFolder(path)
    assert losses(run) == losses(RunFolder(trained_demo))
    assert not processes_of(path)
    curve = scalars(run, "by_iteration/train_loss")
    assert [step for step, _ in curve] == list(range(3, 31, 3))
    assert [value for _, value in curve] == pytest.approx(losses(run))
    assert len(scalars(run, "final_dice/mean")) == 1


def test_a_resume_feeds_the_trackers_that_the_training_was_given(
    ppgs: Ppgs, demo_environ: dict[str, str], stopped_run: Path
) -> None:
    pytest.importorskip("tensorboard")
    run = RunFolder(stopped_run)
    manifest = read_manifest(run)
    manifest.request = manifest.request.model_copy(update={"log": "tensorboard"})
    write_manifest(run, manifest)
    done = ppgs("resume", manifest.name, "--no-tui", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert [step for step, _ in scalars(run, "by_epoch/ema_dice")] == list(range(1, 11))
