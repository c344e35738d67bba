"""`ppgs predict` up to the segmentation itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.cli import predict
from ppgs.commands.predict import Predicted
from ppgs.commands.predict_children import speed_of
from tests.cli.test_counter import terminal
from tests.commands.test_outputs import world


def test_the_bar_is_shown_before_the_first_image_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    shown = terminal(monkeypatch)

    def segment(*_: object) -> Predicted:
        assert "segmenting" in shown.getvalue() and "examining" not in shown.getvalue()
        return Predicted([], speed_of(0, 0.0, {}))

    monkeypatch.setattr(predict, "segment", segment)
    predict.predict(root / "images", root / "new", run="a", root=root)
