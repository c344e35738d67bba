"""Several processes train one run, through the real command and PyTorch's launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from typer.testing import CliRunner

from ppgs.cli.resume import resume
from ppgs.cli.train import command
from ppgs.commands.resume import change_options
from ppgs.commands.slurm import gpus_of, parse_options
from ppgs.commands.train.plan import create_run, plan_run
from ppgs.errors import BadInput, PlansError
from ppgs.runs.manifest import read_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
from tests.helpers.commands import Ppgs, processes_of, start, wait_for
from tests.helpers.runs import events, leftovers, manifest, only_run

TWO = ("--device", "cpu", "--gpus", "2", "--precision", "nnunet", "--no-energy", "--no-tui", "--workers", "0")


def ranks_of(run: Path) -> list[psutil.Process]:
    """Return the training processes, ordered by rank."""
    found = [p for p in processes_of(run, "--launched") if "RANK" in p.environ()]
    return sorted(found, key=lambda p: int(p.environ()["RANK"]))


def test_a_killed_process_stops_resumable_and_the_run_goes_on_with_one_and_with_two(
    demo_environ: dict[str, str],
) -> None:
    results = Path(demo_environ["nnUNet_results"])
    first = start(demo_environ, "train", "demo", "--epochs", "10", "--iterations", "40", *TWO)
    wait_for(results, "iterations", 3)
    run = only_run(demo_environ)
    ranks = ranks_of(run)
    assert len(ranks) == 2
    ranks[1].kill()
    _, err = first.communicate(timeout=120)
    assert first.returncode == 75, err
    assert "ppgs resume demo-efficiency-fold0" in err
    assert manifest(run)["status"] == "stopped"
    assert processes_of(run) == [] and leftovers(run) == []

    # Stopped on request, by one process and by two, it continues at the very iteration.
    for gpus in ("1", "2"):
        told = len([r for r in events(run) if r["type"] == "run_started"])
        again = start(demo_environ, "resume", "--gpus", gpus, "--no-tui")
        wait_for(results, "run_started", told + 1)
        seen = len([r for r in events(run) if r["type"] == "iterations"])
        wait_for(results, "iterations", seen + 1)
        again.send_signal(signal.SIGTERM)
        _, err = again.communicate(timeout=120)
        assert again.returncode == 75, err
        assert processes_of(run) == [] and leftovers(run) == []
    records = events(run)
    saved = [(r["epoch"], r["iteration"]) for r in records if r["type"] == "checkpoint_saved"]
    continued = [(r["epoch"], r["iteration"]) for r in records if r["type"] == "run_started" and r["resumed"]]
    assert [r["processes"] for r in records if r["type"] == "run_started"] == [2, 1, 2]
    assert len(continued) == 2 and set(continued) <= set(saved)
    assert saved == sorted(saved) and saved[-1] > continued[-1]
    assert [r["seq"] for r in records] == list(range(len(records)))


def test_with_restarts_it_goes_on_by_itself_and_validates_on_all(demo_environ: dict[str, str]) -> None:
    results = Path(demo_environ["nnUNet_results"])
    process = start(
        *(demo_environ, "train", "demo", "--epochs", "2", "--iterations", "4", "--schedule", "constant"),
        *(*TWO, "--restarts", "1", "--json"),
    )
    wait_for(results, "epoch_finished")
    run = only_run(demo_environ)
    # Rank 0, the one that writes. The test above kills the other.
    ranks_of(run)[0].kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "finished"
    kinds = [r["type"] for r in events(run)]
    assert kinds.count("run_started") == 2 and kinds.count("run_finished") == 1
    summary = json.loads((run / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(list((run / "validation").glob("*.nii.gz"))) > 1
    assert processes_of(run) == [] and leftovers(run) == []
    assert not list((run / "ppgs" / "ranks").glob("*"))


def test_a_rank_takes_no_offence_at_the_folder_that_the_first_one_is_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = plan_run(TrainingRequest(task="demo", device="cpu"), 0, Roots.under(tmp_path))
    run.own.mkdir(parents=True)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    joined: list[Path] = []
    monkeypatch.setattr(command, "join_training", lambda run, roots: joined.append(run.path) or 0)
    app = typer.Typer()
    command.register(app)
    CliRunner().invoke(app, ["demo", "--device", "cpu", "--root", str(tmp_path)], catch_exceptions=False)
    assert joined == [run.path]


def test_torchrun_starts_the_same_command_everywhere(demo_environ: dict[str, str]) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "ppgs", "train", "demo", "--epochs", "1", "--iterations", "1", "--schedule", "constant"),
            *("--device", "cpu", "--no-energy", "--workers", "0"),
        ],
        env={**os.environ, **demo_environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = only_run(demo_environ)
    assert manifest(run)["status"] == "finished"
    assert [r["processes"] for r in events(run) if r["type"] == "run_started"] == [2]


def test_an_error_of_one_process_before_the_others_wait_for_it_ends_all(
    ppgs: Ppgs, demo_environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "second_fails.py").write_text(
        "import os\n"
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "from ppgs.errors import BadInput\n"
        "class SecondFails(nnUNetTrainer):\n"
        "    def initialize(self):\n"
        "        if os.environ['RANK'] == '1':\n"
        "            raise BadInput('only the second one', 'minds', 'mend it')\n"
        "        super().initialize()\n"
    )
    environ = {**demo_environ, "nnUNet_extTrainer": str(tmp_path)}
    asked = ("--trainer", "SecondFails", "--schedule", "constant", "--epochs", "1", "--iterations", "1")
    done = ppgs("train", "demo", *asked, *TWO, environ=environ, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "only the second one" in done.stderr


def test_more_gpus_than_there_are_is_told(ppgs: Ppgs, demo_environ: dict[str, str]) -> None:
    done = ppgs(
        *("train", "demo", "--gpus", "2", "--no-tui", "--device", "cuda"),
        environ=demo_environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert "2 processes need as many NVIDIA GPUs, here are 0" in done.stderr
    assert not list(Path(demo_environ["nnUNet_results"]).glob("*/*/fold_*"))


class TestOptions:
    @pytest.fixture
    def roots(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Roots]:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        yield Roots.under(tmp_path)

    def test_a_run_goes_on_with_as_many_as_it_is_told(self, roots: Roots) -> None:
        run = create_run(TrainingRequest(task="demo", device="cpu", gpus=2), 0, roots)
        assert read_manifest(run).request.gpus == 2
        change_options(run, restarts=3)
        assert (read_manifest(run).request.gpus, read_manifest(run).request.restarts) == (2, 3)
        change_options(run, gpus=1)
        assert (read_manifest(run).request.gpus, read_manifest(run).request.restarts) == (1, 3)

    def test_a_refused_continuation_changes_nothing(self, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
        run = create_run(TrainingRequest(task="demo", device="mps"), 0, roots)
        before = run.manifest.read_bytes()
        monkeypatch.setattr("ppgs.cli.resume.rescale", lambda *_: pytest.fail("the schedule was changed"))
        with pytest.raises(BadInput, match="NVIDIA"):
            resume(str(run.path), epochs=50, gpus=2, root=roots.results.parent)
        assert run.manifest.read_bytes() == before

    def test_what_cannot_be(self, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(BadInput, match="NVIDIA"):
            plan_run(TrainingRequest(task="demo", device="mps", gpus=2), 0, roots)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(BadInput, match="torchrun"):
            plan_run(TrainingRequest(task="demo", device="cpu", gpus=2), 0, roots)

    def test_slurm_gives_as_many_gpus_as_train(self) -> None:
        given = parse_options(["gpus=4"], device="auto", workers=None)
        assert (given["gpus_per_node"], given["cpus_per_task"]) == (4, 32)
        assert parse_options([], device="auto", workers=3, gpus=2)["gpus_per_node"] == 2
        assert parse_options([], device="auto", workers=3, gpus=2)["cpus_per_task"] == 8
        assert "gpus_per_node" not in parse_options([], device="cpu", workers=0, gpus=2)
        for gres, gpus in {
            "gpu": 1,
            "gpu:4": 4,
            "gpu:a100": 1,
            "gpu:a100:4": 4,
            "gpu:2,shard:8": 2,
            "tmp:5G": 1,
        }.items():
            given = parse_options([f"gres={gres}"], device="auto", workers=3)
            assert (gpus_of(given), given["cpus_per_task"]) == (gpus, 4 * gpus)
        for wrong in (["gpus=4"], ["gres=gpu:4"], ["nodes=2"]):
            with pytest.raises(BadInput):
                parse_options(wrong, device="auto", workers=None, gpus=2)


def test_a_cascades_third_stage_is_refused(demo_root: Path, tmp_path: Path) -> None:
    folder = demo_root / "nnUNet_preprocessed" / "Dataset999_Demo"
    roots = Roots.under(tmp_path)
    target = roots.preprocessed / folder.name
    target.mkdir(parents=True)
    plans: dict[str, Any] = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["second"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    plans["configurations"]["third"] = {"inherits_from": "3d_fullres", "previous_stage": "second"}
    (target / "nnUNetPlans.json").write_text(json.dumps(plans))
    with pytest.raises(PlansError, match="third stage"):
        plan_run(TrainingRequest(task="demo", configuration="third"), 0, roots)


def test_costs_of_other_networks_are_refused_by_name(demo_root: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    folder = demo_root / "nnUNet_preprocessed" / "Dataset999_Demo"
    plans: dict[str, Any] = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"] = {
        "network_class_name": "ppgs.nnunet.other_networks.SwinUnetr",
        "arch_kwargs": {"feature_size": 24},
        "_kw_requires_import": [],
        "ppgs": {"step": [32, 32, 32], "deep_supervision": False},
    }
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "dataset.json").write_bytes((folder / "dataset.json").read_bytes())
    done = ppgs("plan-schedule", tmp_path / "plans.json")
    assert done.returncode == 2
    assert "costs of ppgs.nnunet.other_networks.SwinUnetr cannot be estimated" in done.stderr


def test_memory_is_that_of_a_share_of_the_batch(ppgs: Ppgs) -> None:
    def memory(*more: str) -> list[int]:
        done = ppgs("plan-schedule", "Task04_Hippocampus", "--json", *more)
        assert done.returncode == 0, done.stderr
        return [stage["memory_bytes"] for stage in json.loads(done.stdout)["stages"]]

    alone, shared = memory(), memory("--gpus", "3")
    assert shared[-1] < 0.6 * alone[-1]


def test_a_signal_to_processes_that_do_not_train_yet_is_not_lost(tmp_path: Path) -> None:
    """The launcher hears it before PyTorch is imported, and passes it on to what it starts later."""
    roots = Roots.under(tmp_path)
    run = create_run(TrainingRequest(task="demo", gpus=2, device="cpu", energy=False), 0, roots)
    launcher = [sys.executable, "-m", "ppgs.nnunet.process.launch", str(run.path), "--gpus", "2"]
    process = subprocess.Popen(launcher, env={**os.environ, **roots.environment})
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = int(status.split("SigCgt:")[1].split()[0], 16)
            if caught >> (signal.SIGTERM - 1) & 1:
                break
            time.sleep(0.01)
        process.terminate()
        assert process.wait(120) == 75
    finally:
        process.kill()
    assert manifest(run.path)["status"] == "stopped"
    assert "SIGTERM" in manifest(run.path)["error"]["what"]
    assert processes_of(run.path) == []
