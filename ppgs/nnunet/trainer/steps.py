"""Training and validation steps: nnU-Net's, in equal parts of a batch, and exact after a failed attempt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from torch import nn

from ppgs.errors import PpgsError, ScheduleError
from ppgs.nnunet.data.dataset import KeyedBatches, samples_of
from ppgs.nnunet.data.keys import BatchKey
from ppgs.nnunet.distributed import loss as ranked_loss
from ppgs.nnunet.host import determinism
from ppgs.nnunet.network import optimiser as updates
from ppgs.nnunet.network import precision
from ppgs.nnunet.network.activation_checkpointing import checkpoint_activations, keep_activations, stages_of
from ppgs.nnunet.network.argmax import quick_argmax
from ppgs.nnunet.trainer import ahead
from ppgs.nnunet.trainer.memory_guard import MemoryGuard
from ppgs.nnunet.trainer.nonfinite import NonFiniteBatches
from ppgs.nnunet.trainer.settings import Settings
from ppgs.schedule.shares import Cut

Result = dict[str, Any]


class Stepped(Protocol):
    """The part of a trainer that its steps use."""

    settings: Settings
    network: Any
    loss: Any
    optimizer: Any
    grad_scaler: Any
    label_manager: Any
    device: torch.device
    current_epoch: int
    _dataset: KeyedBatches
    # Losses of the epoch's iterations, for nnU-Net's log and for checkpoints within the epoch.
    _losses: list[float]

    @property
    def _module(self) -> nn.Module: ...
    def _stop_for(self, error: PpgsError) -> NoReturn: ...
    def _wants_to_stop(self) -> bool: ...
    def _save_and_raise(self, error: PpgsError) -> NoReturn: ...


class Steps:
    """The steps of one trainer on one rank; `cut` gives its samples; `progressed(loss)` is called per batch."""

    def __init__(self, trainer: Stepped, cut: Cut, progressed: Callable[[float], object]) -> None:
        self._trainer, self._cut, self._progressed = trainer, cut, progressed
        settings = trainer.settings
        self._guard = MemoryGuard(trainer, trainer._stop_for, cut)
        self._nonfinite: str | None = None
        self._second_stream: ahead.SecondStream | None = None
        # How weights are updated without waiting for the device, and what is not read yet of the newest batch.
        self.late: updates.LateUpdate | None = None
        self._unread: tuple[updates.Reading, BatchKey] | None = None
        self._left_out = NonFiniteBatches(
            skip=settings.skip_nonfinite, warn=lambda message: settings.emit("warning", message=message)
        )

    def prepare(self) -> None:
        """Choose how batches are finished and weights updated, once network and optimiser are on the device."""
        trainer, settings = self._trainer, self._trainer.settings
        if any(stage.checkpointing for stage in settings.schedule.stages):
            try:
                stages_of(trainer._module)
            except ValueError as unknown:
                raise ScheduleError(str(unknown), "checkpointing", "drop it from the schedule's stages") from None
        self._second_stream = ahead.second_stream(trainer.device)
        if trainer.grad_scaler is None and settings.ranks.count == 1:
            self.late = updates.late_update(trainer.optimizer, trainer.device, skip=settings.skip_nonfinite)
        settings.ranks.prepare(self._parameters())

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self._trainer._module.parameters() if p.requires_grad]

    def begin_epoch(self) -> None:
        """Recompute activations in the stages of the schedule that request it, and in no other."""
        trainer = self._trainer
        schedule, epoch = trainer.settings.schedule, trainer.current_epoch
        keep_activations(trainer._module)
        if schedule.stage_at(epoch).checkpointing:
            checkpoint_activations(trainer._module)
        self._guard.enter(schedule.stage_index_at(epoch))

    def train(self, batch: dict[str, Any]) -> Result:
        """Train on one batch and record it; its loss may still be on the device."""
        trainer = self._trainer
        parts = trainer.settings.schedule.stage_at(trainer.current_epoch).accumulation
        with determinism.refusals():
            result = self._guard.step(lambda n: self.take(batch, n), batch["key"].batch_size, parts)
        if self.late is None:
            self._take_note(batch["key"], float(result["loss"]), self._nonfinite)
            return result
        before, self._unread = self._unread, (result["reading"], batch["key"])
        if before is not None:
            self._read(*before)
        return {"loss": result["loss"]}

    def read_all(self) -> None:
        """Wait for the newest batch if its result is not known yet."""
        if self._unread is not None:
            newest, self._unread = self._unread, None
            self._read(*newest)

    def _read(self, reading: updates.Reading, key: BatchKey) -> None:
        loss, norm = reading()
        loss = float(np.float32(loss))
        reason = None if math.isfinite(loss) else f"the loss became {loss}"
        if reason is None and not math.isfinite(norm):
            reason = f"the gradients' norm became {norm}"
        self._take_note(key, loss, reason)

    def _take_note(self, key: BatchKey, loss: float, nonfinite: str | None) -> None:
        """Record whether a batch was trained on or skipped because of a non-finite value. Raises `NonFiniteLoss`."""
        if nonfinite is None:
            self._left_out.end_row()
        else:
            self._meet_nonfinite(nonfinite, sorted(set(self._trainer._dataset.cases_of(key))), loss)
        self._trainer._losses.append(loss)
        self._progressed(loss)

    def take(self, batch: dict[str, Any], parts: int) -> Result:
        """Do `nnUNetTrainer.train_step` in equal parts whose gradients are added up before the one optimiser step."""
        trainer = self._trainer
        parameters = self._parameters()
        if self.late is not None:
            whole = self.backward(batch, parts)
            self._guard.begin_update()
            return {"loss": whole.float(), "reading": self.late(parameters, whole)}
        try:
            loss = trainer.settings.ranks.gradients(lambda: self.backward(batch, parts), trainer._wants_to_stop)
        except PpgsError as error:
            # Another process is gone or has no batch; no weight has been touched.
            trainer._save_and_raise(error)
        result = {"loss": np.float32(loss)}
        self._nonfinite = None if math.isfinite(loss) else f"the loss became {loss}"
        if self._nonfinite is not None:
            return result
        if trainer.grad_scaler is not None:
            self._guard.begin_update()
            trainer.grad_scaler.unscale_(trainer.optimizer)
        # A scaler finds its scale by infinite gradients, and nothing waits for the norm.
        norm = updates.clip(parameters, wait=trainer.grad_scaler is None)
        if norm is not None and not math.isfinite(norm):
            self._nonfinite = f"the gradients' norm became {norm}"
            return result
        self._guard.begin_update()
        if trainer.grad_scaler is not None:
            trainer.grad_scaler.step(trainer.optimizer)
            trainer.grad_scaler.update()
        else:
            trainer.optimizer.step()
        return result

    def break_off(self) -> None:
        """Take part in the step that the other ranks take without a batch, so that they do not wait."""
        trainer = self._trainer
        stage = trainer.settings.schedule.stage_at(trainer.current_epoch)
        pieces = self._cut.pieces(stage.batch_size, self._guard.parts or stage.accumulation)
        ranked_loss.break_off(trainer.loss, len(pieces), trainer.device)
        trainer.settings.ranks.break_off()

    def _meet_nonfinite(self, reason: str, cases: list[str], loss: float) -> None:
        """Skip the batch, or stop before it changes anything. Raises `NonFiniteLoss`."""
        trainer = self._trainer
        # Epochs are 1-based in messages (as in the monitor) and 0-based in the event log.
        what = f"{reason} in epoch {trainer.current_epoch + 1}, iteration {len(trainer._losses) + 1}"
        error = self._left_out.leave_out(what, cases)
        if error is None:
            return
        if self.late is not None:
            if trainer.settings.skip_nonfinite:
                # The batch after it may have been trained on.
                trainer._losses.append(loss)
            else:
                self._unread = None
        state = trainer._module.state_dict().values()
        if all(bool(value.isfinite().all()) for value in state if value.is_floating_point()):
            trainer._stop_for(error)
        raise error

    def backward(self, batch: dict[str, Any], parts: int) -> Any:
        """Compute the gradients of this process's samples; return their contribution to the batch's loss.

        That is a number on the device where nothing may wait for it yet.
        """
        trainer = self._trainer
        waits = self.late is None and trainer.settings.ranks.count == 1
        trainer.optimizer.zero_grad(set_to_none=True)
        total: Any = 0.0
        if trainer.grad_scaler is not None:
            # Makes the scale that a process without samples needs too.
            trainer.grad_scaler.scale(torch.zeros(1, device=trainer.device))
        pieces = self._cut.pieces(batch["key"].batch_size, parts)
        with ranked_loss.settled(trainer.loss, len(pieces), trainer.device):
            batch = self._finish(batch)
            for piece in pieces:
                if not piece.count:
                    total += ranked_loss.absent(trainer.loss, trainer.device) * piece.weight
                    continue
                part = batch if len(pieces) == 1 else samples_of(batch, piece.slots)
                loss = self._loss_of(part["data"], part["target"], piece.whole) * piece.weight
                scaled: Any = loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)
                scaled.backward()
                total += float(loss.detach()) if waits else loss.detach().double()
        return total

    def _finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Augment the batch, unless a loader's worker has done so; on CUDA, beside the training of the one before."""
        finish = self._trainer._dataset.finish
        if self._second_stream is None:
            return finish(batch, self._trainer.device)
        return self._second_stream(batch, finish)

    def _loss_of(self, data: torch.Tensor, target: Any, whole: int) -> torch.Tensor:
        trainer = self._trainer
        targets = [t.to(trainer.device, non_blocking=True) for t in (target if isinstance(target, list) else [target])]
        with precision.autocast(trainer.device, bfloat16=trainer.settings.bfloat16):
            output = trainer.network(data.to(trainer.device, non_blocking=True))
        # The loss is a matter of single precision, as autocast assumes on CUDA.
        with precision.autocast(trainer.device, bfloat16=False):
            output = [o.float() for o in output] if isinstance(output, list | tuple) else output.float()
            ranked_loss.announce(trainer.loss, whole)
            loss: torch.Tensor = trainer.loss(output, targets if isinstance(target, list) else targets[0])
        return loss

    def validate(self, batch: dict[str, Any], plain: Callable[[dict[str, Any]], Result]) -> Result:
        """Run `plain` (`nnUNetTrainer.validation_step`) in parts; return this rank's share of its sums."""
        trainer = self._trainer
        parts = self._cut.validation_parts(trainer.settings.schedule.stages[-1].accumulation)
        pieces = self._cut.pieces(batch["key"].batch_size, parts)
        first = pieces[0] if pieces else None
        if first is None or not first.count:
            labels = trainer.label_manager
            outputs = labels.num_segmentation_heads - (not labels.has_regions)
            loss = 0.0 if first is None else ranked_loss.absent(trainer.loss, trainer.device)
            return {"loss": loss} | {name: np.zeros(outputs) for name in ("tp_hard", "fp_hard", "fn_hard")}
        ranked_loss.announce(trainer.loss, first.whole)

        def take(_: int) -> Result:
            with ranked_loss.settled(trainer.loss, len(pieces), trainer.device):
                finished, seen = self._finish(batch), []
                for piece in pieces:
                    with (
                        precision.autocast(trainer.device, bfloat16=trainer.settings.bfloat16),
                        quick_argmax(trainer.network, trainer.device),
                    ):
                        one = plain(samples_of(finished, piece.slots))
                    seen.append({**one, "loss": one["loss"] * np.float32(piece.weight)})
            return {name: sum(one[name] for one in seen) for name in seen[0]}

        return self._guard.step(take, 1, 1)
