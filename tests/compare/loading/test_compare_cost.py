"""Costs and convergence curves from the files that trainings leave."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ppgs.compare.loading.cost import carbon_intensity, own_source, shared_source
from ppgs.compare.loading.curves import from_epochs, read_progress, read_training_logs
from ppgs.compare.model import Curve, FoldCost
from ppgs.errors import BadInput


def test_the_source_of_seconds_is_one_that_all_folds_have() -> None:
    both, log, none = FoldCost({"emissions": 1, "log": 2}), FoldCost({"log": 3}), FoldCost()
    assert shared_source([[both], [both]]) == "emissions"
    assert shared_source([[both], [both, log]]) == "log"
    assert shared_source([[both], [none]]) is None
    assert own_source([both]) == "emissions"
    assert own_source([]) is None


def test_carbon_intensity_of_countries() -> None:
    pytest.importorskip("codecarbon")
    assert 0 < carbon_intensity("SWE") < carbon_intensity("deu") < carbon_intensity("POL") < 1.2
    with pytest.raises(BadInput) as error:
        carbon_intensity("GERMANY")
    assert "--country" in error.value.problems[0].where


def test_curve_of_our_events() -> None:
    records = {
        e: {"epoch": e, "stage": s, "ema_dice": d, "seconds": 10.0, "energy_wh": 500.0}
        for e, s, d in ((0, 0, 0.1), (1, 0, 0.3), (2, 1, None), (3, 1, 0.5))
    }
    curve = from_epochs(records)
    assert curve is not None
    assert curve.seconds == (10, 20, 30, 40)
    assert curve.kwh == (0.5, 1.0, 1.5, 2.0)
    assert curve.stage_starts == (2,)
    assert curve.final == 0.5
    assert curve.first_reaching(0.3) == 1
    assert curve.first_reaching(0.6) is None
    records[1]["energy_wh"] = None
    assert from_epochs(records).kwh == ()  # type: ignore[union-attr]
    assert from_epochs({}) is None


def test_curve_of_progress_csv(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_text("ema_fg_dice,epoch_start_timestamps,epoch_end_timestamps\n0.1,100,130\n0.2,131,151\n")
    curve = read_progress(path)
    assert curve == Curve((0, 1), (0.1, 0.2), (30.0, 50.0))
    path.write_text("ema_fg_dice,epoch_start_timestamps\n0.1,100\n")
    assert read_progress(path) is None
    assert read_progress(tmp_path / "none.csv") is None


def test_curve_of_training_logs_of_a_resumed_training(tmp_path: Path) -> None:
    def epoch(number: int, dice: str, seconds: float) -> str:
        stamp = "2026-01-01 10:00:00.000000:"
        return (
            f"{stamp} \n{stamp} Epoch {number} \n{stamp} Current learning rate: 0.01 \n{stamp} train_loss -0.5 \n"
            f"{stamp} Pseudo dice [{dice}] \n{stamp} Epoch time: {seconds} s \n"
        )

    first = epoch(0, "np.float32(0.2), np.float32(0.4)", 10) + epoch(1, "0.5, nan", 11)
    second = epoch(1, "0.8, 0.8", 20) + "2026-01-01 11:00:00: Epoch 2 \n"
    (tmp_path / "training_log_2026_9_30_11_00_00.txt").write_text(first)
    (tmp_path / "training_log_2026_10_1_10_00_00.txt").write_text(second)
    curve = read_training_logs(tmp_path)
    assert curve is not None
    assert curve.epochs == (0, 1)
    assert curve.seconds == (10, 30)
    assert curve.dice == pytest.approx((0.3, 0.9 * 0.3 + 0.1 * 0.8))
    assert read_training_logs(tmp_path / "none") is None


def test_curve_without_any_dice() -> None:
    assert math.isnan(Curve((0,), (math.nan,), (1.0,)).final)
