"""Wrong raw data through the real commands: refused early by all three, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import BadInput
from ppgs.tasks import Roots
from tests.conftest import Ppgs
from tests.helpers.datasets import MIRRORED, dataset, read, write
from tests.helpers.spoilt_datasets import slices_on_the_first_axis

SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--no-tui", "--no-energy")


@pytest.mark.parametrize("command", [("train", *SHORT), ("prepare",), ("doctor",)], ids=lambda c: c[0])
def test_wrong_data_is_refused_by_all_commands(tmp_path: Path, ppgs: Ppgs, command: tuple[str, ...]) -> None:
    raw = tmp_path / "nnUNet_raw"
    dataset(raw, "Dataset001_Labels", labels={"0": "background", "1": "organ", "2": "core"})
    folder = dataset(raw, "Dataset002_Mirrored")
    for path in sorted((folder / "labelsTr").iterdir()):
        write(read(path), path, direction=MIRRORED)
    slices_on_the_first_axis(raw).rename(raw / "Dataset003_Flat")
    for number, said in (
        ("1", '"labels": {"background": 0, "organ": 1, "core": 2}'),
        ("2", "x runs the other way"),
        ("3", "one voxel along an axis"),
    ):
        done = ppgs(command[0], number, *command[1:], "--root", tmp_path)
        assert done.returncode == 2, done.stderr
        told = done.stdout if command[0] == "doctor" else done.stderr
        assert said in told
        assert "Traceback" not in done.stderr and "resume" not in done.stderr
    left = [p for name in ("nnUNet_preprocessed", "nnUNet_results") for p in (tmp_path / name).rglob("*")]
    assert not [p for p in left if p.is_file() and ".ppgs" not in p.parts]


def test_some_of_nnunets_variables_alone(tmp_path: Path) -> None:
    environ = {"nnUNet_raw": str(tmp_path)}
    with pytest.raises(BadInput, match="nnUNet_preprocessed and nnUNet_results are not"):
        Roots.choose(None, environ)
    assert Roots.choose(tmp_path, environ) == Roots.under(tmp_path)
