"""Measuring energy with CodeCarbon: laps, the record, no network, and trainings that go on without it."""

from __future__ import annotations

import builtins
import csv
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.runs.emissions import EMISSIONS, read_emissions

codecarbon = pytest.importorskip("codecarbon")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Fails and notes every connection to anywhere."""
    tried: list[Any] = []

    def refuse(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / EMISSIONS).open(newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def measuring(folder: Path, **options: Any) -> Iterator[EnergyMeter]:
    meter = EnergyMeter(folder, **options)
    meter.start()
    yield meter
    meter.stop()


def test_laps_add_up_to_the_record(tmp_path: Path, no_network: list[Any]) -> None:
    meter = EnergyMeter(tmp_path, sample_seconds=0.2)
    assert meter.start()
    laps = []
    for _ in range(3):
        time.sleep(0.3)
        lap = meter.lap()
        assert lap is not None
        laps.append(lap)
        assert len(rows(tmp_path)) == 1
    meter.stop()
    found = read_emissions(tmp_path / EMISSIONS)
    assert found is not None
    assert all(lap > 0 for lap in laps)
    assert sum(laps) <= found.energy_kwh * 1000 + 1e-9
    assert found.seconds >= 0.9
    assert found.co2_kg > 0
    assert found.country == "DEU"
    assert no_network == []
    assert [p.name for p in tmp_path.iterdir()] == [EMISSIONS]


def test_a_resumed_training_appends_a_row(tmp_path: Path, no_network: list[Any]) -> None:
    for _ in range(2):
        with measuring(tmp_path, sample_seconds=0.2) as meter:
            time.sleep(0.1)
            meter.lap()
    found = rows(tmp_path)
    assert len(found) == 2
    assert len({row["run_id"] for row in found}) == 2
    total = read_emissions(tmp_path / EMISSIONS)
    assert total is not None
    assert total.energy_kwh == pytest.approx(sum(float(row["energy_consumed"]) for row in found))


def test_the_users_configuration_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
) -> None:
    for name, value in {
        "SAVE_TO_API": "true", "API_KEY": "k", "EMISSIONS_ENDPOINT": "http://example.invalid",
        "ELECTRICITYMAPS_API_TOKEN": "t", "CO2_SIGNAL_API_TOKEN": "t", "OUTPUT_METHODS": "api,csv",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    with measuring(tmp_path, sample_seconds=0.1) as meter:
        time.sleep(0.3)
        assert meter.lap() is not None
    assert no_network == []


def test_switched_off(tmp_path: Path) -> None:
    with measuring(tmp_path, enabled=False) as meter:
        assert meter.lap() is None
        assert meter.problem == "switched off"
    assert list(tmp_path.iterdir()) == []


def test_without_codecarbon_a_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("codecarbon"):
            raise ImportError(name)
        return real(name, *rest, **options)

    for name in [n for n in sys.modules if n.startswith("codecarbon")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    meter = EnergyMeter(tmp_path)
    assert not meter.start()
    assert meter.lap() is None
    assert meter.problem == "codecarbon is not installed"
    meter.stop()


def test_a_tracker_that_fails_ends_the_measuring_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = EnergyMeter(tmp_path, sample_seconds=0.2)
    assert meter.start()

    def broken() -> None:
        raise RuntimeError("counter gone")

    monkeypatch.setattr(meter._tracker, "flush", broken)
    assert meter.lap() is None
    assert "counter gone" in (meter.problem or "")
    assert meter.lap() is None
    meter.stop()
    meter.stop()


def test_a_folder_that_cannot_be_written_does_not_stop_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    meter = EnergyMeter(tmp_path / "file" / "fold_0")
    assert not meter.start()
    assert "cannot be measured" in (meter.problem or "")


def test_earlier_records_are_kept_to_the_letter(tmp_path: Path, no_network: list[Any]) -> None:
    before = "run_id,duration,energy_consumed,emissions,own_column\nold,7.5,0.25,0.1,kept\n"
    (tmp_path / EMISSIONS).write_text(before)
    with measuring(tmp_path, sample_seconds=0.2):
        time.sleep(0.1)
    first, second = rows(tmp_path)
    assert {k: first[k] for k in ("run_id", "duration", "energy_consumed", "own_column")} == {
        "run_id": "old", "duration": "7.5", "energy_consumed": "0.25", "own_column": "kept",
    }  # fmt: skip
    assert second["own_column"] == ""
