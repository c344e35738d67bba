"""`ppgs predict` up to the segmentation itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.cli import predict
from ppgs.cli.predict_result import name_latest
from ppgs.commands.predict import Predicted
from ppgs.commands.predict_children import speed_of
from ppgs.runs.folder import RunFolder
from tests.cli.test_counter import terminal
from tests.commands.test_outputs import FOLDERS, world


def test_a_checkpoint_of_an_unfinished_training_is_named_with_its_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(world(tmp_path / "world") / FOLDERS[-1])
    name_latest([run.checkpoint_final])
    name_latest([run.checkpoint_latest])
    events = [{"type": "run_started", "epochs": 1000}, {"type": "checkpoint_saved", "epoch": 3}]
    lines = [json.dumps({"v": 1, "seq": seq, "time": 0.0} | event) + "\n" for seq, event in enumerate(events)]
    run.events.write_text("".join(lines))
    name_latest([run.checkpoint_latest])
    said = "fold_0 of 3d_fullres: latest checkpoint"
    assert capsys.readouterr().err.splitlines() == [said, f"{said}, after 3 of 1000 epochs"]


def test_the_bar_is_shown_before_the_first_image_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    shown = terminal(monkeypatch)

    def segment(*_: object) -> Predicted:
        assert "segmenting" in shown.getvalue() and "examining" not in shown.getvalue()
        return Predicted([], speed_of(0, 0.0, {}))

    monkeypatch.setattr(predict, "segment", segment)
    predict.predict(root / "images", root / "new", run="a", root=root)
