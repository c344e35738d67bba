"""The GPU battery runs dry, at tiny sizes on the CPU: its parts 0 to 3 and 6."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.test_benchmarks import ROOT, benchmark

# Items that a machine without CUDA can only skip.
SKIPPED = {0: {"compile"}, 1: {"synchronisations of an iteration"}}


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from battery import record

    yield record


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("battery")


@pytest.mark.parametrize("part", (0, 1, 2, 3, 6))
def test_a_part_runs_dry(part: int, root: Path, tmp_path: Path) -> None:
    done = benchmark("gpu_battery.py", part, "--out", tmp_path, "--root", root, "--dry", PPGS_CACHE=str(root / "cache"))
    found = json.loads((tmp_path / f"part{part}.json").read_text())
    errors = {name: item["error"] for name, item in found["items"].items() if "error" in item}
    assert (done.returncode, errors) == (0, {}), done.stderr[-3000:]
    assert set(found["skipped"]) == SKIPPED.get(part, set())
    assert found["items"] and found["dry"]
    assert found["machine"]["packages"]["torch"]


def options(tmp_path: Path, **changes: Any) -> argparse.Namespace:
    given = {"dry": False, "device": "cpu", "root": tmp_path, "out": tmp_path, "minutes": 1.0, "only": None}
    return argparse.Namespace(**{**given, **changes})


def test_items_that_no_longer_fit_are_listed_as_skipped(record: Any, tmp_path: Path) -> None:
    now = [0.0]
    part = record.Part(9, options(tmp_path), clock=lambda: now[0])

    def lasting(seconds: float) -> str:
        now[0] += seconds
        return "done"

    assert part.item("first", 30, lambda: lasting(40)) == "done"
    assert part.item("second", 30, lambda: lasting(1)) is None
    assert part.item("third", 10, lambda: lasting(1)) == "done"
    found = json.loads((tmp_path / "part9.json").read_text())
    assert list(found["items"]) == ["first", "third"]
    assert found["skipped"] == {"second": "needs about 30 s, 20 s are left"}


def test_an_item_that_fails_is_recorded_and_the_others_are_taken(record: Any, tmp_path: Path) -> None:
    part = record.Part(9, options(tmp_path))
    part.item("bad", 1, lambda: 1 / 0)
    # Whole after every item.
    assert "ZeroDivisionError" in json.loads((tmp_path / "part9.json").read_text())["items"]["bad"]["error"]
    part.item("good", 1, lambda: {"ms": 1.0})
    found = json.loads((tmp_path / "part9.json").read_text())
    assert found["items"]["good"]["result"] == {"ms": 1.0}
    assert part.failed == 1
    assert not list(tmp_path.glob("*.part"))


def test_the_checks_of_the_gpu_tests_are_the_batterys(record: Any) -> None:
    from battery.correctness import CHECKS

    from tests.gpu.test_correctness import CHECKS as asked

    assert tuple(CHECKS) == asked
    assert str(ROOT / "benchmarks") in sys.path
