"""Measured steps become a stored calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.estimate import calibration as module
from ppgs.estimate import cards
from ppgs.estimate.allocator import replay
from ppgs.estimate.calibration import Calibration, evaluate, find, stored
from ppgs.estimate.cards import host_name
from ppgs.estimate.machine import choose_machine
from ppgs.estimate.tracer import Tracer
from ppgs.nnunet.probing.timing import device_name
from ppgs.processes.limits import cpu_count

from .conftest import FLOPS_PER_VOXEL, FakeTracer
from .test_tracer import NETWORKS


def answer(device: str = host_name("cpu", cpu_count()), **more: object) -> dict[str, Any]:
    points = [((8, 8, 8), 2), ((16, 16, 16), 2), ((40, 56, 40), 2)]
    flops = [FLOPS_PER_VOXEL * b * p[0] * p[1] * p[2] for p, b in points]
    return {
        "device": device,
        "torch": "2",
        "watts": None,
        "context": None,
        "points": [
            {"patch": p, "batch": b, "seconds": 0.02 + f / 1e10} for (p, b), f in zip(points, flops, strict=True)
        ],
        "validation": {"patch": (40, 56, 40), "batch": 2, "seconds": 0.1},
        **more,
    }


def test_overhead_rate_and_validation_are_found() -> None:
    made = evaluate(FakeTracer(), answer())  # type: ignore[arg-type]
    assert made.speed.overhead == pytest.approx(0.02, rel=1e-3)
    assert made.speed.rate == pytest.approx(1e10, rel=1e-3)
    flops = FLOPS_PER_VOXEL / 3 * 2 * 40 * 56 * 40
    assert made.validation * made.speed.seconds(flops, made.speed.network) == pytest.approx(0.1, rel=1e-2)


def test_on_a_gpu_the_workspace_is_that_which_explains_the_reserved_bytes() -> None:
    network = NETWORKS["plain"]
    tracer = Tracer(network)
    points = []
    for size in (32, 64):
        patch = (size,) * 3
        events = tracer.law("train", patch, 2).events(patch, 2)
        points.append(
            {"patch": patch, "batch": 2, "seconds": 0.1, "reserved": replay(events, workspace=0.6).peak_reserved}
        )
    seen = {"patch": (64, 64, 64), "batch": 2, "seconds": 0.05}
    made = evaluate(tracer, answer("NVIDIA A30", points=points, validation=seen, context=400 << 20))
    for point in points:
        events = tracer.law("train", point["patch"], 2).events(point["patch"], 2)  # type: ignore[arg-type]
        again = replay(events, workspace=made.surroundings.workspace).peak_reserved
        assert again == pytest.approx(point["reserved"], rel=0.02)
    assert made.surroundings.context == 400 << 20
    assert made.surroundings.margin < 1.15


def test_a_calibration_is_kept_and_found_by_the_cards_name(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "ask", lambda request: answer("NVIDIA GeForce RTX 3090", context=1, points=answer()["points"])
    )
    made = module.calibrate(FakeTracer(), [((8, 8, 8), 2)], "cuda")  # type: ignore[arg-type]
    assert find("rtx3090") is None
    module.keep(made)
    assert find("rtx3090") == find("NVIDIA GeForce RTX 3090") == made
    assert find("a100") is None
    assert find("cpu") is None
    machine = choose_machine("auto", "rtx3090")
    assert machine.calibration == made
    assert machine.surroundings == made.surroundings
    next((own_cache / "calibration").glob("*.json")).write_text("[]", encoding="utf-8")
    assert stored() == []


def test_a_calibration_of_another_pytorch_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ask", lambda request: answer())
    module.keep(module.calibrate(FakeTracer(), [((8, 8, 8), 2)], "cpu"))  # type: ignore[arg-type]
    assert isinstance(find("cpu"), Calibration)
    monkeypatch.setattr(module, "torch_version", lambda: "99")
    assert find("cpu") is None


def test_a_calibration_with_another_number_of_threads_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [evaluate(FakeTracer(), answer(host_name("cpu", threads))) for threads in (4, 16)]  # type: ignore[arg-type]
    for calibration in made:
        module.keep(calibration)
    for threads, expected in ((4, made[0]), (16, made[1]), (8, None)):
        monkeypatch.setattr(module, "cpu_count", lambda threads=threads: threads)
        assert find("cpu") == expected


def test_a_calibration_of_apples_gpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "cpu_name", lambda: "arm")
    assert device_name(torch.device("mps")) == "mps arm"
    made = evaluate(FakeTracer(), answer("mps arm"))  # type: ignore[arg-type]
    module.keep(made)
    assert find("mps") == made
    assert find("cpu") is find("a100") is None


def test_a_calibration_of_a_mig_slice_is_not_the_whole_cards() -> None:
    whole, part = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    for name, other in ((whole, part), (part, "NVIDIA A100-SXM4-40GB MIG 3g.20gb")):
        made = evaluate(FakeTracer(), answer(name))  # type: ignore[arg-type]
        module.keep(made)
        assert find(name) == made
        assert find(other) is None


def test_what_the_next_point_takes_follows_the_last_two() -> None:
    from ppgs.nnunet.probing.timing import expected_seconds

    assert expected_seconds([], 10**9) == expected_seconds([(1000, 5.0)], 10**9) == 0
    assert expected_seconds([(1000, 1.0), (2000, 1.5)], 4000) == pytest.approx(2.5)
    assert expected_seconds([(1000, 1.5), (2000, 1.0)], 4000) == 1.0


def test_real_steps_are_taken_in_their_own_process() -> None:
    tracer = Tracer(NETWORKS["plain"], mixed=False)
    made = module.calibrate(tracer, [((8, 8, 8), 2), ((16, 16, 16), 2)], "cpu", budget=30)
    assert made.device == host_name("cpu", cpu_count())
    assert {p.patch for p in made.speed.points} == {(8, 8, 8), (16, 16, 16)}
    assert made.speed.rate > 0
