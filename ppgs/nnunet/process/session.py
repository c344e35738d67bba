"""One process's part in a training: the same sequence for a single process and for one of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ppgs.errors import StoppedEarly
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.inference.validation import score, segment
from ppgs.nnunet.network.precision import inference
from ppgs.nnunet.trainer.factory import Job, make_trainer
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.processes.stop import Stop
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Schedule


class Session:
    """Builds the trainer, then `begin`, `train` and `validate`; all ranks step together."""

    def __init__(
        self,
        job: Job,
        run: RunFolder,
        ranks: Ranks,
        stop: Stop,
        *,
        emit: Callable[..., object],
        energy: EnergyMeter,
        plan: Callable[[Schedule], Schedule] | None = None,
    ) -> None:
        self._job, self._ranks, self._stop = job, ranks, stop
        self.trainer = make_trainer(
            job, run, ranks, emit=emit, stop_requested=lambda: stop.reason, energy=energy, plan=plan
        )

    def begin(
        self, checkpoint: dict[str, Any] | None, source: Path, pretrained: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Wait for the others and continue from rank 0's `checkpoint`; `source` is the file it was read from.

        Without a checkpoint, a run that asks for them starts from the first one's `pretrained` weights.
        """
        self._ranks.connect(self.trainer.device)
        content = self._ranks.share(checkpoint)
        if content is not None:
            self.trainer.restore(content, source)
        elif self._job.manifest.request.pretrained is not None:
            weights = self._ranks.share(pretrained)
            assert weights is not None
            self.trainer.start_from(weights)

    def train(self) -> None:
        """Train the remaining epochs. From here on a signal stops between iterations, with a checkpoint."""
        self._stop.interrupt = False
        if self._ranks.rank == 0 and self._stop.reason is not None:
            raise StoppedEarly(f"stopped on request ({self._stop.reason})")
        if not self._job.trained:
            try:
                self.trainer.train()
            finally:
                self.trainer.close()
        self._stop.interrupt = True
        if self._stop.reason is not None:
            raise StoppedEarly(f"stopped before validation ({self._stop.reason})")

    def validate(self, place: RunFolder) -> None:
        """Validate as `validate_together`, into this folder."""
        validate_together(self.trainer, place, npz=self._job.manifest.request.npz)


def validate_together(trainer: PpgsTrainer, run: RunFolder, *, npz: bool) -> None:
    """Segment the validation cases, shared among the ranks; rank 0 writes the summary."""
    ranks = trainer.settings.ranks
    # Rank 0 has cleared the folder: wait for it.
    ranks.share(None)
    run.validation.mkdir(exist_ok=True)
    trainer.set_deep_supervision_enabled(False)
    try:
        with inference(trainer.device, bfloat16=trainer.settings.bfloat16):
            segment(trainer, run, probabilities=npz)
    finally:
        trainer.set_deep_supervision_enabled(True)
    # The others have written theirs.
    ranks.agree(None)
    if ranks.rank == 0:
        score(trainer, run)
