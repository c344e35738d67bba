"""The time of nnU-Net's progress figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from ppgs.nnunet.trainer import reporting
from ppgs.nnunet.trainer.reporting import figure_seconds


def test_the_second_figure_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, left = 0.0, [5.0, 2.0]

    def draw(log: LocalLogger, folder: str) -> None:
        nonlocal now
        now += left.pop(0)

    def timed(work: Callable[[], object], device: torch.device) -> float:
        begun = now
        work()
        return now - begun

    monkeypatch.setattr(LocalLogger, "plot_progress_png", draw)
    monkeypatch.setattr(reporting, "seconds_of", timed)
    assert figure_seconds() == 2.0 and not left


def test_nnunet_draws_it_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = []
    draw = LocalLogger.plot_progress_png

    def kept(log: LocalLogger, folder: str) -> None:
        draw(log, folder)
        drawn.append(Path(folder, "progress.png"))
        assert drawn[-1].is_file()

    monkeypatch.setattr(LocalLogger, "plot_progress_png", kept)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seconds = figure_seconds()
    assert seconds is not None and seconds > 0 and len(drawn) == 2
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_drawn_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalLogger, "plot_progress_png", None)
    assert figure_seconds() is None
