"""The models that `export` puts into a zip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.commands import export
from tests.commands.test_models import trained
from tests.helpers.facts import raw_plans

FIRST, SECOND = "Spleen-efficiency-fold0", "Spleen-cascade-fold0"


@pytest.mark.parametrize("given", [[FIRST, SECOND], [SECOND], [SECOND, "its folder"]])
def test_a_cascade_is_exported_once_also_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    target, link = tmp_path / "disk" / "nnUNet_results", tmp_path / "nnUNet_results"
    target.mkdir(parents=True)
    link.symlink_to(target)
    first = trained(link, "Dataset009_Spleen", 0)
    second = first.in_configuration("cascade")
    second.own.mkdir(parents=True)
    facts = {"name": SECOND, "configuration": "cascade"}
    second.manifest.write_text(json.dumps(json.loads(first.manifest.read_text()) | facts))
    plans = raw_plans()
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    for run in (first, second):
        run.checkpoint_final.touch()
        (run.model / "plans.json").write_text(json.dumps(plans))
    monkeypatch.setattr(export, "finished", lambda run: run)
    spelt = [str(second.path.resolve()) if name == "its folder" else name for name in given]
    models, _ = export.choose_models(spelt, None, tmp_path, {})
    assert sorted((m.configuration, len(m.runs)) for m in models) == [("3d_fullres", 1), ("cascade", 1)]
