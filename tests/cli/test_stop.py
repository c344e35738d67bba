"""`ppgs stop` on a training in the background, and without anything to stop."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from tests.helpers.commands import Ppgs, processes_of, wait_for
from tests.helpers.made_runs import made
from tests.helpers.runs import leftovers, manifest, only_run


def test_what_trains_in_the_background_is_stopped_with_a_checkpoint(ppgs: Ppgs, demo_environ: dict[str, str]) -> None:
    at = {"environ": demo_environ}
    options = ("--epochs", "12", "--iterations", "2000", "--no-energy", "--device", "cpu", "--detach")
    started = ppgs("train", "demo", *options, **at)
    assert (started.returncode, started.stdout) == (0, "demo-efficiency-fold0\n"), started.stderr
    run = only_run(demo_environ)
    try:
        wait_for(Path(demo_environ["nnUNet_results"]), "iterations")
        training = processes_of(run, "ppgs.nnunet.process")
        assert manifest(run)["pid"] in [process.pid for process in training]
        assert manifest(run)["host"] == socket.gethostname()
        done = ppgs("stop", "--json", **at)
    finally:
        for process in processes_of(run):
            process.kill()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"name": "demo-efficiency-fold0", "path": str(run), "status": "stopped"}]
    assert "ppgs resume demo-efficiency-fold0" in done.stderr
    assert manifest(run)["status"] == "stopped"
    assert (run / "checkpoint_latest.pth").is_file()
    assert leftovers(run) == []
    again = ppgs("stop", run, **at)
    assert again.returncode == 4
    assert "no process is training this run" in again.stderr
    assert "nothing is being trained" in ppgs("stop", **at).stderr


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[RunFolder, ...]]:
    """Two runs that the process of the test works on."""
    results = tmp_path / "nnUNet_results"
    places = [RunFolder.place(results, "Dataset001_A", name, "P", "3d_fullres", 0) for name in ("a", "b")]
    first, second = (made(place, f"{name}-fold0", "training") for place, name in zip(places, "ab", strict=True))
    with Lock(first.lock), Lock(second.lock):
        yield first, second


def test_of_several_it_wants_to_know_which(ppgs: Ppgs, live: tuple[RunFolder, ...], tmp_path: Path) -> None:
    done = ppgs("stop", "--root", tmp_path)
    assert done.returncode == 2
    assert "2 runs are being trained" in done.stderr
    assert "a-fold0, b-fold0" in done.stderr


@pytest.mark.parametrize(("job", "remedy"), [(None, "stop process 12 there"), ("77_3", "scancel 77_3")])
def test_none_is_stopped_where_one_trains_elsewhere(
    ppgs: Ppgs, live: tuple[RunFolder, ...], tmp_path: Path, job: str | None, remedy: str
) -> None:
    first, second = live
    owner = json.loads(second.lock.read_text()) | {"host": "node7", "pid": 12}
    second.lock.write_text(json.dumps(owner))
    if job is not None:
        (second.own / "slurm.json").write_text(json.dumps({"job": job}))
    # Were the first one asked, this would end the process of the test.
    done = ppgs("stop", first.path, second.path, "--root", tmp_path)
    assert done.returncode == 4
    assert "the training runs on node7" in done.stderr
    assert remedy in done.stderr


def test_what_waits_in_a_queue_is_taken_out_of_it(ppgs: Ppgs, tmp_path: Path) -> None:
    run = made(RunFolder.place(tmp_path / "nnUNet_results", "Dataset001_A", "a", "P", "2d", 0), "a-fold0", "queued")
    (run.own / "slurm.json").write_text(json.dumps({"job": "78"}))
    done = ppgs("stop", "a-fold0", "--root", tmp_path)
    assert done.returncode == 4
    assert "waits in the queue" in done.stderr and "scancel 78" in done.stderr
