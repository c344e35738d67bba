"""Uncalibrated times: from a card's published throughput and nnU-Net's logs of an H100."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.commands.plan_schedule import PlanRequest, Result, plan_schedule
from ppgs.errors import BadInput
from ppgs.estimate import cards, preflight
from ppgs.estimate.cards import CARDS
from ppgs.estimate.published import THROUGHPUT, rough_speed
from ppgs.tasks import Roots

# Seconds of an epoch on an H100 PCIe: benchmarks/results/h100_epochs.md.
LOGGED = {
    "Task01_BrainTumour": 55, "Task02_Heart": 27, "Task03_Liver": 21, "Task04_Hippocampus": 5.7, "Task05_Prostate": 19,
    "Task06_Lung": 26, "Task07_Pancreas": 21, "Task08_HepaticVessel": 26, "Task09_Spleen": 21, "Task10_Colon": 21,
}  # fmt: skip


def planned(tmp_path: Path, task: str = "Task04_Hippocampus", **options: object) -> Result:
    return plan_schedule(PlanRequest(task=task, **options), Roots.choose(tmp_path, {}))  # type: ignore[arg-type]


def test_every_card_with_tensor_cores_has_figures() -> None:
    assert CARDS.keys() - THROUGHPUT.keys() == {"gtx1080", "gtx1080ti", "p100"}
    assert THROUGHPUT.keys() <= CARDS.keys()


@pytest.mark.parametrize("card", sorted(THROUGHPUT))
def test_speeds_are_in_order(card: str) -> None:
    rough = rough_speed(card)
    assert rough is not None
    assert rough.slow.rate < rough.middle.rate < rough.fast.rate < THROUGHPUT[card].tensor * 1e12
    assert rough.fast.overhead < rough.middle.overhead < rough.slow.overhead


@pytest.mark.parametrize(
    ("device", "card"),
    [
        ("NVIDIA H100 PCIe", "h100-80gb"), ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"), ("NVIDIA GeForce RTX 3090 Ti", None), ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("24GiB", None), ("cpu", None),
    ],
)  # fmt: skip
def test_cards_are_found_by_their_names(device: str, card: str | None) -> None:
    rough = rough_speed(device)
    assert (None if rough is None else rough.card) == card


@pytest.mark.parametrize("task", sorted(LOGGED))
def test_the_range_holds_for_the_logs(task: str, tmp_path: Path) -> None:
    span = planned(tmp_path, task, schedule="constant", gpu_memory="h100").estimate.stages[0].rough_epoch
    assert span is not None
    assert span.low <= LOGGED[task] <= span.high
    if task != "Task01_BrainTumour":
        assert span.middle == pytest.approx(LOGGED[task], rel=0.2)


def test_a_plan_without_calibration_has_a_marked_range(tmp_path: Path) -> None:
    result = planned(tmp_path, gpu_memory="h100")
    value = json.loads(json.dumps(result.as_json()))
    assert value["seconds"] is None
    assert value["calibrated_on"] is None
    spans = [value["uncalibrated_seconds"], value["relative_to_constant"]["uncalibrated_time"]]
    spans += [stage["uncalibrated_seconds_per_epoch"] for stage in value["stages"]]
    assert all(0 < span["low"] < span["middle"] < span["high"] for span in spans)
    assert spans[0]["middle"] == pytest.approx(
        sum(s["epochs"] * s["uncalibrated_seconds_per_epoch"]["middle"] for s in value["stages"])
    )
    # Steps of small patches cost launches: time falls less than FLOPs.
    assert value["relative_to_constant"]["flops"] < spans[1]["low"] < 1
    assert any("uncalibrated" in note for note in result.notes)


@pytest.mark.parametrize("gpu_memory", ["24GiB", "gtx1080"])
def test_without_figures_the_time_stays_unknown(gpu_memory: str, tmp_path: Path) -> None:
    result = planned(tmp_path, gpu_memory=gpu_memory)
    assert result.as_json()["uncalibrated_seconds"] is None
    assert any("not known" in note for note in result.notes)
    with pytest.raises(BadInput, match="not known"):
        planned(tmp_path, gpu_memory=gpu_memory, budget="1h")


def test_a_budget_of_time_is_met_by_the_middle(tmp_path: Path) -> None:
    result = planned(tmp_path, gpu_memory="h100", budget="30min")
    rough = result.estimate.rough_seconds
    assert rough is not None
    assert 0.95 * 1800 < rough.middle <= 1800
    assert any("middle of the uncalibrated range" in note for note in result.notes)


@pytest.mark.parametrize(("name", "known"), [("NVIDIA H100 PCIe", True), ("A new card", False)])
def test_a_guess_that_cannot_be_measured(
    name: str, known: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the GPU is busy")

    monkeypatch.setattr(cards, "present", lambda: cards.Gpu(name, 80 << 30))
    monkeypatch.setattr(preflight, "calibrate", broken)
    planning = planned(tmp_path, epochs=30)
    schedule, costs = planning.schedule, planning.costs
    if not known:
        with pytest.raises(RuntimeError, match="busy"):
            preflight.guess_costs(schedule, costs, device="cuda:0", most_seconds=9.0)
        return
    guess = preflight.guess_costs(schedule, costs, device="cuda:0", most_seconds=9.0)
    assert guess.uncalibrated == "the GPU is busy"
    assert len(guess.iteration) == len(schedule.stages)
    assert 0 < guess.validation < guess.iteration[-1]


def test_a_measurement_that_cannot_be_kept_serves_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[object] = []

    def unwritable(calibration: object) -> None:
        measured.append(calibration)
        raise BadInput("the calibration cannot be written", "cache")

    planning = planned(tmp_path, device="cpu", epochs=30)
    monkeypatch.setattr(preflight, "keep", unwritable)
    guess = preflight.guess_costs(planning.schedule, planning.costs, device="cpu", most_seconds=0.0)
    assert measured and guess.uncalibrated is None and guess.iteration[-1] > 0
