"""Peaks of a GPU's reserved memory: of training, which estimates predict, and of validation."""

from __future__ import annotations

import torch


class Peaks:
    """The peaks of an epoch on one device, in bytes; all of them None where the device is no GPU.

    PyTorch keeps released blocks, so that whatever ran before counts in what runs next. At the start of a stage, and of
    a process, the cache is emptied before the peaks are reset: the training of that epoch is measured alone. Later
    epochs also hold what the validation at the full patch has left; they have no training peak.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stage: int | None = None
        self._alone = False
        self._trained: int | None = None
        self.training: int | None = None
        self.validation: int | None = None

    @property
    def whole(self) -> int | None:
        """The peak of the whole epoch."""
        known = [peak for peak in (self._trained, self.validation) if peak is not None]
        return max(known, default=None)

    def begin(self, stage: int) -> None:
        """Start an epoch of this stage."""
        self._alone, self._stage = stage != self._stage, stage
        self.training = self.validation = self._trained = None
        if self._device.type != "cuda":
            return
        if self._alone:
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def trained(self) -> None:
        """End the epoch's training; what follows is its validation."""
        self._trained = self._read()
        self.training = self._trained if self._alone else None
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def validated(self) -> None:
        """End the epoch's validation."""
        self.validation = self._read()

    def _read(self) -> int | None:
        return int(torch.cuda.max_memory_reserved(self._device)) if self._device.type == "cuda" else None
