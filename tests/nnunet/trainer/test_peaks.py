"""A stage's peak memory is its own, and that of training is separate from validation's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ppgs.nnunet.trainer.peaks import Peaks
from ppgs.schedule import Recipe


class Allocator:
    """PyTorch's figures of reserved memory: blocks stay in the cache until it is emptied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reserved = self.peak = 0
        self.calls: list[str] = []
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: self.peak)

    def empty(self) -> None:
        self.calls.append("empty")
        self.reserved = 0

    def reset(self, _: object) -> None:
        self.calls.append("reset")
        self.peak = self.reserved

    def use(self, size: int) -> None:
        self.reserved = max(self.reserved, size)
        self.peak = max(self.peak, self.reserved)


def epoch(peaks: Peaks, allocator: Allocator, stage: int, training: int, validation: int) -> tuple[Any, ...]:
    peaks.begin(stage)
    allocator.use(training)
    peaks.trained()
    allocator.use(validation)
    peaks.validated()
    return peaks.training, peaks.validation, peaks.whole


def test_the_peaks_of_a_stage_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator(monkeypatch)
    peaks = Peaks(torch.device("cuda"))
    assert epoch(peaks, allocator, 0, training=10, validation=50) == (10, 50, 50)
    assert allocator.calls == ["empty", "reset", "reset"]
    # The blocks of the validation are still there: what this epoch's training alone needs is not known.
    assert epoch(peaks, allocator, 0, training=10, validation=50) == (None, 50, 50)
    assert allocator.calls[3:] == ["reset", "reset"]
    # The next stage does not count what the one before has reserved.
    assert epoch(peaks, allocator, 1, training=20, validation=30) == (20, 30, 30)
    assert epoch(peaks, allocator, 2, training=90, validation=30) == (90, 90, 90)


def test_an_epoch_tells_both_peaks(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[dict[str, Any]] = []
    recipe = Recipe(mode="constant", epochs=2, iterations_per_epoch=1)
    trainer = build(recipe, emit=lambda kind, **fields: emitted.append(fields | {"kind": kind}))
    allocator = Allocator(monkeypatch)
    trainer._reports.peaks = Peaks(torch.device("cuda"))
    step, validate = trainer.train_step, trainer.validation_step
    trainer.train_step = lambda batch: allocator.use(10) or step(batch)
    trainer.validation_step = lambda batch: allocator.use(50) or validate(batch)
    trainer.run_training()
    names = ("train_peak_memory_bytes", "validation_peak_memory_bytes", "peak_memory_bytes")
    ended = [tuple(e[name] for name in names) for e in emitted if e["kind"] == "epoch_finished"]
    assert ended == [(10, 50, 50), (None, 50, 50)]


def test_without_a_gpu_there_are_no_peaks() -> None:
    peaks = Peaks(torch.device("cpu"))
    peaks.begin(0)
    peaks.trained()
    peaks.validated()
    assert (peaks.training, peaks.validation, peaks.whole) == (None, None, None)
