"""CodeCarbon's `emissions.csv` as in a fold's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import BadInput
from ppgs.runs.emissions import read_emissions
from tests.helpers import result_folders as rf


def test_emissions_of_a_resumed_and_flushed_training_add_up(tmp_path: Path) -> None:
    rows = [
        {"run_id": "a", "duration": 10, "energy_consumed": 1, "emissions": 0.3, "gpu_energy": 0.5},
        {"run_id": "a", "duration": 25, "energy_consumed": 2, "emissions": 0.6, "gpu_energy": 1.5},
        {"run_id": "b", "duration": 100, "energy_consumed": 4, "emissions": 1.2, "gpu_energy": 3.0},
    ]
    found = read_emissions(rf.write_emissions(tmp_path, rows))
    assert found is not None
    assert (found.seconds, found.energy_kwh, found.gpu_kwh) == (125, 6, 4.5)
    assert found.co2_kg == pytest.approx(1.8)
    assert (found.country, found.gpus) == ("DEU", 1)


def test_no_or_damaged_emissions(tmp_path: Path) -> None:
    assert read_emissions(tmp_path / "emissions.csv") is None
    path = rf.write_emissions(tmp_path, [{"duration": "long"}])
    with pytest.raises(BadInput) as error:
        read_emissions(path)
    assert error.value.problems[0].where == str(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput):
        read_emissions(path)
