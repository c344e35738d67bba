"""Benchmarks run: those that need a GPU at least start and tell what they would do."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import Result, run_script

ROOT = Path(__file__).resolve().parents[1]


def benchmark(script: str, *arguments: object, **environ: str) -> Result:
    return run_script(ROOT / "benchmarks" / script, *arguments, environ=environ)


def test_the_memory_benchmark_for_cuda_runs_dry(shared: Path, tmp_path: Path) -> None:
    asked = ("--dry-run", "--task", "Hippocampus", "--modes", "efficiency,performance")
    done = benchmark("memory_cuda.py", shared / "msd", *asked, PPGS_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "004_Hippocampus nnUNetPlans | 40 56 40 | 9 |" in done.stdout
    assert "stages would be measured" in done.stdout


def test_the_speed_benchmark_compares_with_stock_nnunet_and_the_limit(tmp_path: Path) -> None:
    asked = ("--contenders", "stock,constant+precision=nnunet", "--epochs", 2, "--iterations", 1, "--limit-seconds", 0)
    done = benchmark("speed.py", "demo", "--root", tmp_path, *asked, "--markdown", tmp_path / "speed.md")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| ")]
    ratios = {row[1].strip(): (float(row[-3]), float(row[-2])) for row in rows[2:]}
    assert list(ratios) == ["stock", "constant+precision=nnunet"]
    assert ratios["stock"][0] == 1.0
    # How large they are depends on the machine and on what else it does.
    assert all(ratio > 0 for found in ratios.values() for ratio in found)


def test_a_task_of_another_ones_shapes_is_trained_for_its_time(shared: Path, tmp_path: Path) -> None:
    made = benchmark("synthetic_task.py", shared / "msd" / "Dataset004_Hippocampus", "--root", tmp_path, "--cases", 5)
    assert made.returncode == 0, made.stderr
    asked = ("--contenders", "constant", "--epochs", 1, "--iterations", 1, "--limit-seconds", 0)
    done = benchmark("speed.py", "Dataset004_Hippocampus", "--root", tmp_path, *asked)
    assert done.returncode == 0, done.stderr
    assert "| constant |" in done.stdout
    (stages,) = [
        json.loads(line)["stages"]
        for log in tmp_path.glob("nnUNet_results/*/*/fold_0/ppgs/events.jsonl")
        for line in log.read_text().splitlines()
        if json.loads(line)["type"] == "run_started"
    ]
    assert [stage["patch_size"] for stage in stages] == [[40, 56, 40]]


def test_117_classes_are_segmented_voxel_for_voxel_as_stock_nnunet_does(tmp_path: Path) -> None:
    done = benchmark("predict.py", "ct", tmp_path, "--classes", 117, "--shape", 48, 96, 96)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agreement"] == {"images": 1, "voxels": 48 * 96 * 96, "different": 0}
    # Memory differs only at sizes that no test can take; `test_export.py` looks at the export alone.
    assert all(result["finished"] and result["peak_gib"] > 0 for result in (*found["ours"], *found["stock"]))


def test_curricula_are_compared_with_stock_nnunet_at_equal_work(demo_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(demo_root, tmp_path / "root")
    asked = ("--root", root, "--work", 1, "--seeds", 1, "--iterations", 1, "--arms", "constant,stock")
    done = benchmark("curriculum.py", "demo", *asked, "--", "--device", "cpu", "--no-energy")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[:3] for row in rows[2:]] == [["constant", "1", "1"], ["stock", "1", "1"]]
    assert all(float(row[3]) > 0 for row in rows[2:])
    # Nothing that is there is trained again.
    again = benchmark("curriculum.py", "demo", *asked, "--most", 0)
    assert again.stdout == done.stdout


def test_trainings_with_other_settings_are_not_taken_over(tmp_path: Path) -> None:
    same = runpy.run_path(str(ROOT / "benchmarks" / "cells.py"))["same_settings"]
    for what in ("curricula of demo", "budgets of demo"):
        for _ in range(2):
            same(tmp_path, what, {"iterations": 20, "passed": ["--device", "cpu"]})
    with pytest.raises(SystemExit, match=r"budgets of demo with other settings \(passed\): give another --root"):
        same(tmp_path, "budgets of demo", {"iterations": 20, "passed": []})


def test_the_time_to_the_dice_of_stock_nnunet_is_a_share_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "curriculum.py"))
    points = {"stock": [(100, 0.6), (200, 0.8)], "auto": [(50, 0.7), (100, 0.9)], "constant": [(90, 0.5), (190, 0.9)]}
    found = {
        benchmark["Cell"]("demo", f"{minutes}m", arm, 0): benchmark["Result"](dice, seconds, 9)
        for arm, results in points.items()
        for minutes, (seconds, dice) in enumerate(results, 1)
    }
    table = benchmark["report"](found).partition("| seconds to the Dice of ")[2].splitlines()
    assert table[0] == "| stock, 1m: 0.6000 | stock, 2m: 0.8000 | constant, 1m: 0.5000 | constant, 2m: 0.9000 |"
    assert table[2:5] == [
        "| stock | 100 (1.00) | 200 (1.00) | ≤ 100 | - |",
        "| auto | ≤ 50 (0.50) | 75 (0.38) | ≤ 50 | 100 |",
        "| constant | 115 (1.15) | 165 (0.82) | 90 | 190 |",
    ]
