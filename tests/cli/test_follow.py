"""Output of `train` and `resume` at the end of a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.cli.train.follow import tell_result
from ppgs.runs.folder import RunFolder
from ppgs.runs.state import RunState
from tests.helpers.made_runs import made


def test_a_class_without_a_dice_has_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN, where no validation case has the class, is null in the event log."""
    run = made(RunFolder(tmp_path / "fold_0"), "demo", "finished")
    state = RunState(dice={"organ": 0.5, "lesion": None}, mean_dice=0.5)
    tell_result(run, state, as_json=False)
    assert "validation Dice 0.5000  (organ 0.5000  lesion -)" in capsys.readouterr().out


def test_brackets_in_the_name_of_a_class_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(RunFolder(tmp_path / "fold_0"), "demo", "finished")
    tell_result(run, RunState(dice={"tumour [core]": 0.5, "b[/b]": 0.25}, mean_dice=0.375), as_json=False)
    assert "(tumour [core] 0.5000  b[/b] 0.2500)" in capsys.readouterr().out
