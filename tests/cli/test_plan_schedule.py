"""`ppgs plan-schedule`, the real command in a real process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ppgs = Callable[..., "subprocess.CompletedProcess[str]"]
SURFACE = {
    "task": str,
    "configuration": str,
    "plans": str,
    "schedule": str,
    "stages": list,
    "epochs": int,
    "iterations_per_epoch": int,
    "peak_memory_bytes": int,
    "memory_limit_bytes": (int, type(None)),
    "fits": bool,
    "relative_to_constant": dict,
}
STAGE = {
    "patch_size": list,
    "batch_size": int,
    "epochs": int,
    "first_epoch": int,
    "foreground_share": float,
    "memory_bytes": int,
    "flops_per_iteration": int,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plan(ppgs: Ppgs, cache: Path, tmp_path: Path) -> Ppgs:
    # A card that is here would be the one that is planned for.
    here = {"PPGS_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": ""}

    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return ppgs("plan-schedule", *arguments, "--root", tmp_path / "root", environ={**here, **environ})

    return run


def read(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_the_demo_is_short_unless_the_schedule_says_how_long_it_is(
    ppgs: Ppgs, cache: Path, demo_environ: dict[str, str], tmp_path: Path
) -> None:
    def lengths(*more: object) -> tuple[int, int]:
        environ = {**demo_environ, "PPGS_CACHE": str(cache)}
        found = read(ppgs("plan-schedule", "demo", "--schedule", given, "--json", *more, environ=environ))
        return found["epochs"], found["iterations_per_epoch"]

    given = tmp_path / "mine.yaml"
    given.write_text("mode: efficiency")
    assert lengths() == (40, 20)
    given.write_text("mode: efficiency\nepochs: 12")
    assert lengths() == (12, 20)
    given.write_text("mode: efficiency\nepochs: 1000\niterations_per_epoch: 3")
    assert lengths() == (1000, 3)
    assert lengths("--epochs", 30) == (30, 3)


def test_json_is_the_public_surface(plan: Ppgs) -> None:
    found = read(plan("Task04_Hippocampus", "--json"))
    for key, kind in SURFACE.items():
        assert isinstance(found[key], kind), key  # type: ignore[arg-type]
    assert len(found["stages"]) == 15
    for stage in found["stages"]:
        for key, kind in STAGE.items():
            assert isinstance(stage[key], kind), key
    assert [s["first_epoch"] for s in found["stages"]] == [66 * i for i in range(15)]
    assert sum(s["epochs"] for s in found["stages"]) == found["epochs"] == 1000
    assert found["peak_memory_bytes"] == max(s["memory_bytes"] for s in found["stages"])
    assert found["memory_limit_bytes"] is None
    assert found["fits"] is True
    assert set(found["relative_to_constant"]) == {"voxels", "flops", "time", "uncalibrated_time"}
    # GFLOP of a step at batch 9, as PyTorch counts them (measured at batch 2: 229 and 1.3).
    assert found["stages"][-1]["flops_per_iteration"] == pytest.approx(229.4e9 / 2 * 9, rel=1e-3)
    assert found["stages"][0]["flops_per_iteration"] == pytest.approx(1.3e9 / 2 * 9, rel=0.02)


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_keeps_within_the_terminal(plan: Ppgs, width: int) -> None:
    done = plan("Task04_Hippocampus", "--gpu-memory", "8GiB", COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if "40 56 40" in line or line.lstrip().startswith("#")]
    assert len(table) == 2
    assert all(len(line.rstrip()) <= width for line in table)
    assert "against constant patch size" in done.stdout


def test_what_does_not_fit_is_told_and_refused(plan: Ppgs, tmp_path: Path) -> None:
    done = plan("Task04_Hippocampus", "--gpu-memory", "1GiB", "--json", "-o", tmp_path / "no.yaml")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["fits"] is False
    assert found["memory_limit_bytes"] == 1 << 30
    assert "stage 15" in done.stderr
    beyond = found["stages"][-1]["memory_floor_bytes"] - found["memory_limit_bytes"]
    assert f"{beyond / 2**20:.0f} MiB more than there is" in done.stderr
    assert "accumulation" in done.stderr
    assert not (tmp_path / "no.yaml").exists()


def test_fit_makes_it_fit_and_the_written_schedule_is_read_back(plan: Ppgs, tmp_path: Path) -> None:
    file = tmp_path / "fitted.yaml"
    first = read(plan("Task04_Hippocampus", "--gpu-memory", "1GiB", "--fit", "--json", "-o", file))
    assert first["fits"]
    assert first["changes"]
    assert any(s["accumulation"] > 1 for s in first["stages"])
    again = read(plan("Task04_Hippocampus", "--schedule", file, "--gpu-memory", "1GiB", "--json"))
    assert again["stages"] == first["stages"]


def test_a_schedule_for_other_plans_is_refused(plan: Ppgs, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    read(plan("Task04_Hippocampus", "--json", "-o", file))
    done = plan("Task01_BrainTumour", "--schedule", file)
    assert done.returncode == 2
    assert "dataset" in done.stderr


def test_real_plans_by_path(plan: Ppgs, shared: Path) -> None:
    plans = shared / "msd" / "Dataset004_Hippocampus" / "nnUNetPlans.json"
    by_path = read(plan(plans, "--json"))
    assert by_path["task"] == "Dataset004_Hippocampus"
    assert by_path["stages"] == read(plan("Task04_Hippocampus", "--json"))["stages"]
    assert len(read(plan(plans, "--configuration", "2d", "--json"))["stages"][0]["patch_size"]) == 2


def test_the_demo_is_made_on_the_spot(ppgs: Ppgs, cache: Path, tmp_path: Path) -> None:
    found = read(ppgs("plan-schedule", "demo", "--json", "--root", tmp_path, environ={"PPGS_CACHE": str(cache)}))
    assert found["task"] == "demo"
    assert (tmp_path / "nnUNet_preprocessed" / "Dataset999_Demo" / "nnUNetPlans.json").is_file()


def test_the_demo_once_it_is_prepared(ppgs: Ppgs, demo_root: Path, cache: Path) -> None:
    environ = {"PPGS_CACHE": str(cache)}
    found = read(ppgs("plan-schedule", "demo", "--json", "--root", demo_root, environ=environ))
    assert found["task"] == "demo"
    assert found["stages"][-1]["memory_bytes"] > found["stages"][0]["memory_live_bytes"]
    by_id = read(ppgs("plan-schedule", "999", "--json", "--root", demo_root, environ=environ))
    assert by_id["stages"] == found["stages"]


def test_a_picture(plan: Ppgs, tmp_path: Path) -> None:
    read(plan("Task04_Hippocampus", "--json", "--plot", tmp_path / "p.svg"))
    assert "<svg" in (tmp_path / "p.svg").read_text(encoding="utf-8")


def test_a_budget_of_a_share(plan: Ppgs) -> None:
    found = read(plan("Task04_Hippocampus", "--budget", "10%", "--json"))
    assert found["epochs"] < 1000
    assert found["relative_to_constant"]["flops"] * found["epochs"] <= 100
    assert "epochs 1000 ->" in found["changes"][-1]


def test_a_budget_is_met_with_what_fills_the_memory(plan: Ppgs) -> None:
    arguments = ("--schedule", "performance", "--fill", "--gpu-memory", "8GiB", "--budget", "60%", "--json")
    found = read(plan("Task04_Hippocampus", *arguments))
    assert found["relative_to_constant"]["flops"] * found["epochs"] <= 600
    assert any("batch" in change for change in found["changes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Task01_BrainTumor"], "Task01_BrainTumour"),
        (["Task04_Hippocampus", "--gpu-memory", "rtx3900"], "rtx3090"),
        (["Task04_Hippocampus", "--gpu-memory", "much"], "--gpu-memory"),
        (["Task04_Hippocampus", "--device", "tpu"], "--device"),
        (["Task04_Hippocampus", "--schedule", "eficiency"], "efficiency"),
        (["Task04_Hippocampus", "--epochs", "14"], "15"),
        (["Task04_Hippocampus", "--budget", "tomorrow"], "--budget"),
        (["Task04_Hippocampus", "--budget", "1h"], "--calibrate"),
        (["Task04_Hippocampus", "--fill"], "--gpu-memory"),
        (["Task04_Hippocampus", "--configuration", "2d"], "3d_fullres"),
        (["Task04_Hippocampus", "--plot", "picture.txt"], "--plot"),
        (["no/such/nnUNetPlans.json"], "nnUNetPlans.json"),
        (["4"], "4"),
    ],
)
def test_bad_input_is_told_in_a_block_with_exit_2(plan: Ppgs, arguments: list[str], words: str) -> None:
    done = plan(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_run_that_is_not_there(plan: Ppgs) -> None:
    assert plan("Task04_Hippocampus", "--against", "nothing").returncode == 4


def test_neither_torch_nor_nnunet_is_imported(cache: Path) -> None:
    code = (
        "import sys, os; sys.argv = ['ppgs', 'plan-schedule', 'Task04_Hippocampus', '--json']\n"
        "from ppgs.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'nnunetv2', 'numpy', 'matplotlib', 'textual'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PPGS_CACHE": str(cache)}
    )
    assert done.stderr.strip().splitlines()[-1] == "[]", done.stderr


def test_a_budget_is_met_with_a_warm_up_and_from_a_later_stage(plan: Ppgs, tmp_path: Path) -> None:
    warm = tmp_path / "warm.yaml"
    warm.write_text("mode: efficiency\nlearning_rate: {warmup: 20}\n")
    found = read(plan("Task04_Hippocampus", "--schedule", warm, "--epochs", 100, "--budget", "20%", "--json"))
    assert 20 < found["epochs"] < 100
    # The shorter a training is, the fewer stages `auto` has: the tenth of them is another patch.
    whole = read(plan("Task04_Hippocampus", "--schedule", "auto", "--from-stage", 10, "--json"))
    part = read(plan("Task04_Hippocampus", "--schedule", "auto", "--from-stage", 10, "--budget", "20%", "--json"))
    patches = [[s["patch_size"] for s in one["stages"]] for one in (whole, part)]
    assert patches[0] == patches[1] and part["epochs"] < whole["epochs"]


def test_what_is_prepared_goes_before_what_ships(
    plan: Ppgs, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of the task's own data hides neither.
    (tmp_path / "Task04_Hippocampus").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read(plan("Task04_Hippocampus", "--json"))["stages"][-1]["batch_size"] == 9
    real = shared / "msd" / "Dataset004_Hippocampus"
    folder = tmp_path / "root" / "nnUNet_preprocessed" / "Dataset004_Hippocampus"
    folder.mkdir(parents=True)
    plans = json.loads((real / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = 17
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    shutil.copy(real / "dataset.json", folder)
    found = read(plan("Task04_Hippocampus", "--json"))
    assert found["stages"][-1]["batch_size"] == 17
