from __future__ import annotations

from pathlib import Path

from ppgs.nnunet.preparation.pipeline import _set_aside


def test_damaged_plans_are_kept_under_another_name(tmp_path: Path) -> None:
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text('{"patch_size": [32, 32, 32],}')
    _set_aside(plans)
    assert not plans.exists()
    assert (tmp_path / "nnUNetPlans.json.damaged").read_text() == '{"patch_size": [32, 32, 32],}'


def test_whole_plans_stay(tmp_path: Path) -> None:
    plans = tmp_path / "nnUNetPlans.json"
    _set_aside(plans)
    plans.write_text("{}")
    _set_aside(plans)
    assert plans.read_text() == "{}"
