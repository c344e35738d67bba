"""Comparisons that the tests of several media share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.results import Comparison
from ppgs.tasks import Roots
from tests.helpers import result_folders as rf


@pytest.fixture
def two_tasks(tmp_path: Path) -> Comparison:
    for n, task in enumerate((rf.TASK, "Dataset778_Se_cond")):
        for m, model in enumerate((rf.PLAIN, rf.OTHER)):
            rf.write_model(tmp_path, model, {"0": rf.random_cases(5 * n + m)}, task=task, emissions=True)
    return compare(CompareRequest((str(tmp_path),), Roots.under(tmp_path)))


@pytest.fixture
def own(tmp_path: Path) -> Comparison:
    runs = [
        str(rf.write_own_run(tmp_path, schedule, rf.random_cases(seed + len(schedule)), seed=seed).path)
        for schedule in ("constant", "efficiency")
        for seed in (0, 1)
    ]
    return compare(CompareRequest(tuple(runs), Roots.under(tmp_path)))
