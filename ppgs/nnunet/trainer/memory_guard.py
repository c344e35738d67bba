"""Handling of exhausted GPU memory: one retry in parts if that is exact, else a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from ppgs.errors import DoesNotFit, PpgsError
from ppgs.formatting import first_line, size
from ppgs.nnunet.host.out_of_memory import is_out_of_memory
from ppgs.schedule.shares import WHOLE, Cut

Result = dict[str, Any]


class MemoryGuard:
    """Watches the steps of a training, stage by stage.

    The first time that memory runs out the step is taken again as equal parts whose gradients are added up, and so are
    all later ones of the stage: the same effective batch (see `ppgs.schedule.Stage` for when that is exact).
    """

    def __init__(self, trainer: Any, stop: Callable[[PpgsError], NoReturn], cut: Cut = WHOLE) -> None:
        self._trainer, self._stop, self._cut = trainer, stop, cut
        self._stage = 0
        # In how many parts the stage's batches are taken; None as the schedule says.
        self.parts: int | None = None
        self._updating = False

    def enter(self, stage: int) -> None:
        """Start an epoch: the steps that follow are this stage's."""
        if stage != self._stage:
            self._stage, self.parts = stage, None

    def begin_update(self) -> None:
        """Mark the point in a step before anything in the next checkpoint is changed."""
        self._updating = True

    def step(self, take: Callable[[int], Result], batch: int, parts: int) -> Result:
        """Call `take(parts)`, once more with more parts if memory runs out; `batch` is the number of samples.

        Where several processes train together, `take` runs out of memory on all of them or on none.

        Raises `DoesNotFit`, with the state saved if the update had not started.
        """
        parts = self.parts or parts
        self._updating = False
        try:
            return take(parts)
        except RuntimeError as error:
            # Only its text: its traceback would keep the step's tensors alive.
            reason = _reason(error)
        if self._updating:
            raise self._refusal(reason)
        self._trainer.optimizer.zero_grad(set_to_none=True)
        if self._trainer.device.type == "cuda":
            torch.cuda.empty_cache()
        more = next((n for n in range(parts + 1, batch + 1) if self._helps(batch, parts, n)), None)
        if self.parts is None and more is not None and self._is_exact():
            self.parts = more
            self._trainer.settings.emit(
                "warning",
                message=f"out of memory in stage {self._stage + 1}: its batches of {batch} are trained in {more} parts "
                f"from here on, with the same gradients ({reason})",
            )
            try:
                return take(more)
            except RuntimeError as error:
                reason = _reason(error)
            self._trainer.optimizer.zero_grad(set_to_none=True)
        refusal = self._refusal(reason)
        if not self._updating:
            self._stop(refusal)
        raise refusal

    def _helps(self, batch: int, parts: int, more: int) -> bool:
        return (
            batch % more == 0 and more % parts == 0 and self._cut.largest(batch, more) < self._cut.largest(batch, parts)
        )

    def _is_exact(self) -> bool:
        trainer = self._trainer
        norms = [m for m in trainer._module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        whole_batch = trainer.configuration_manager.batch_dice or trainer.label_manager.has_ignore_label
        return not norms and not whole_batch and not trainer._has_own_loss

    def _refusal(self, reason: str) -> DoesNotFit:
        predicted = self._trainer.settings.predicted_memory
        expected = size(predicted[self._stage] if self._stage < len(predicted) else None)
        there = "N/A"
        if self._trainer.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._trainer.device)
            there = f"{size(free)} free of {size(total)}"
        return DoesNotFit(
            f"out of memory in stage {self._stage + 1}: predicted {expected}, available {there} ({reason})",
            self._trainer.settings.run.path,
            "end what else uses the GPU, then 'ppgs resume' continues; or train a new run with --fit",
        )


def _reason(error: RuntimeError) -> str:
    """Return the first line of an out-of-memory error; raise any other error again."""
    if not is_out_of_memory(error):
        raise error
    return first_line(error)
