"""The battery's checks of correctness on a GPU. Skipped without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
CHECKS = (
    "augmentation on the CPU and on the device",
    "a batch of two and singles",
    "batches finished on a second stream",
    "one step against float32 on the CPU",
    "a killed worker under pinned memory",
    "synchronisations of an iteration",
    "memory that runs out",
    "a resumed training",
    "sliding window and pictures",
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and there is none here")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sys.path.insert(0, BENCHMARKS)
    from battery.correctness import Setting

    yield Setting(tmp_path_factory.mktemp("gpu"), "cuda", None, dry=False)
    sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("name", CHECKS)
def test_check(setting: Any, name: str) -> None:
    from battery.correctness import CHECKS as checks
    from battery.record import Skip

    _, check = checks[name]
    try:
        figures = check(setting)
    except Skip as reason:
        pytest.skip(str(reason))
    assert figures["ok"], figures
