"""Events that a trainer writes while it trains, and the interval of nnU-Net's progress figure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from ppgs.errors import StoppedEarly
from ppgs.nnunet.host.devices import seconds_of
from ppgs.nnunet.trainer.peaks import Peaks
from ppgs.nnunet.trainer.settings import Settings

_PLOT_SECONDS = 600.0
_PROGRESS_SECONDS = 0.5


class Reports:
    """The events of epochs and iterations, with their times and peaks of memory."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings = settings
        self.peaks = Peaks(device)
        self._started = self._waited = self._trained = self._validated = 0.0
        self._last_progress = -math.inf

    def begin_epoch(self, epoch: int, waited: float, *, whole: bool) -> None:
        """Start the clock; `waited` are seconds for batches so far; `whole`: no iteration of the epoch is done yet."""
        self._started, self._waited = time.perf_counter(), waited
        schedule = self._settings.schedule
        stage = schedule.stage_index_at(epoch)
        self.peaks.begin(stage)
        if epoch == schedule.first_epoch(stage) and whole:
            self._settings.emit(
                "stage_started",
                stage=stage,
                epoch=epoch,
                patch_size=schedule.stages[stage].patch_size,
                batch_size=schedule.stages[stage].batch_size,
            )

    def trained(self) -> None:
        """Record the end of the epoch's training; its validation begins."""
        self.peaks.trained()
        self._trained = time.perf_counter()

    def validated(self) -> None:
        """Record the end of the epoch's validation, after all ranks have agreed on it."""
        self._validated = time.perf_counter()

    def end_epoch(self, epoch: int, value: Callable[[str, int], Any], *, waited: float, saving: float) -> None:
        """Emit `epoch_finished`; `value` reads nnU-Net's log; `saving` is the time when the checkpoint was started."""
        settings, peaks, ended = self._settings, self.peaks, time.perf_counter()
        # nnU-Net's log has the values before for an epoch that is not validated.
        is_validated = settings.schedule.validation_iterations_at(epoch) > 0
        settings.emit(
            "epoch_finished",
            epoch=epoch,
            stage=settings.schedule.stage_index_at(epoch),
            train_loss=float(value("train_losses", -1)),
            val_loss=float(value("val_losses", -1)) if is_validated else None,
            pseudo_dice=[float(d) if is_validated else None for d in value("dice_per_class_or_region", -1)],
            ema_dice=float(value("ema_fg_dice", -1)),
            learning_rate=float(value("lrs", -1)),
            seconds=ended - self._started,
            train_seconds=self._trained - self._started,
            validation_seconds=self._validated - self._trained if is_validated else 0.0,
            checkpoint_seconds=ended - saving,
            data_wait_seconds=waited - self._waited,
            peak_memory_bytes=self._largest(peaks.whole),
            train_peak_memory_bytes=self._largest(peaks.training),
            validation_peak_memory_bytes=self._largest(peaks.validation),
            energy_wh=settings.energy.lap(),
        )

    def progress(self, epoch: int, phase: str, done: int, total: int, loss: float | None) -> None:
        """Emit `iterations`, but not more often than viewers need."""
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_SECONDS and done < total:
            return
        self._last_progress = now
        self._settings.emit(
            "iterations",
            epoch=epoch,
            stage=self._settings.schedule.stage_index_at(epoch),
            phase=phase,
            iteration=done,
            iterations=total,
            loss=loss,
        )

    def _largest(self, peak: int | None) -> int | None:
        """Return the largest of all ranks' peaks; either all ranks have one or none has."""
        return None if peak is None else int(max(self._settings.ranks.gather(peak)))


class SparsePlots:
    """Draws nnU-Net's figure of 30 x 54 inches only now and then: it takes longer than a small stage's epoch."""

    def __init__(self, plot: Callable[[str], object], is_last: Callable[[], bool]) -> None:
        self._plot, self._is_last = plot, is_last
        self._last = -math.inf

    def __call__(self, output_folder: str) -> None:
        now = time.monotonic()
        if self._is_last() or (self._last > -math.inf and now - self._last > _PLOT_SECONDS):
            self._last = now
            self._plot(output_folder)
        elif self._last == -math.inf:
            self._last = now


def figure_seconds() -> float | None:
    """Return seconds in which this machine draws nnU-Net's figure (`LocalLogger.plot_progress_png`); None if it fails.

    It is drawn twice, since the very first figure on a machine waits for matplotlib's cache of fonts.
    """
    try:
        log = LocalLogger()
        log.load_checkpoint({key: [0.0, 1.0] for key in log.get_checkpoint()})
        with TemporaryDirectory() as folder:
            return [seconds_of(lambda: log.plot_progress_png(folder), torch.device("cpu")) for _ in range(2)][-1]
    except StoppedEarly:
        raise
    except Exception:  # of nnU-Net, whose logger may change, or of a disk: the figure itself reports it
        return None
