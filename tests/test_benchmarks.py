"""Benchmarks that need a GPU at least start and tell what they would do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_memory_benchmark_for_cuda_runs_dry(shared: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / "memory_cuda.py"),
            *(str(shared / "msd"), "--dry-run", "--task", "Hippocampus", "--modes", "efficiency,performance"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PPGS_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "004_Hippocampus nnUNetPlans | 40 56 40 | 9 |" in done.stdout
    assert "stages would be measured" in done.stdout
