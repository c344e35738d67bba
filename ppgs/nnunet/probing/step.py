"""One training step as in `PpgsTrainer`, apart from its batch, on any device including `meta`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from ppgs.nnunet.host.devices import can_compile, compiled
from ppgs.nnunet.host.malloc import keep_released_memory
from ppgs.nnunet.network import optimiser as updates
from ppgs.nnunet.network import precision
from ppgs.nnunet.network.small_patches import allow_small_patches
from ppgs.nnunet.probing.autocast import CudaAutocast

# nnUNetTrainer's own figures; they do not change what is measured, but a step should be the step.
_LEARNING_RATE, _WEIGHT_DECAY, _MOMENTUM = 0.01, 3e-5, 0.99


class Step:
    """Network, loss and optimiser of one architecture, and steps at any patch and batch size.

    `facts` is `ppgs.estimate.Network` as plain data; `mixed` steps in CUDA's mixed precision, `trained` as `ppgs train`
    does on the device. `patch` is in voxels, axis order (z, y, x) or (y, x).
    """

    def __init__(
        self,
        facts: dict[str, Any],
        device: str,
        *,
        checkpointing: bool = False,
        mixed: bool = False,
        trained: bool = False,
    ) -> None:
        self.facts = facts
        self.device = torch.device(device)
        if trained and self.device.type == "cpu":
            keep_released_memory()
        self._mixed, self._bfloat16 = mixed, trained and precision.has_bfloat16(self.device)
        # As nnUNetTrainer makes it, and as PpgsTrainer leaves it out.
        scales = trained and self.device.type == "cuda" and not self._bfloat16
        self._scaler = torch.amp.GradScaler("cuda") if scales else None
        self._no_scaler = trained and self._scaler is None
        with self.device:
            network: nn.Module = get_network_from_plans(
                facts["class_name"],
                facts["kwargs"],
                facts["imports"],
                facts["channels"],
                facts["heads"],
                allow_init=device != "meta",
                deep_supervision=True,
            )
        self.network = allow_small_patches(network)
        if checkpointing:
            from ppgs.nnunet.network.activation_checkpointing import checkpoint_activations

            # The recomputation uses the precision of the first computation.
            checkpoint_activations(self.network, lambda: (contextlib.nullcontext(), self._network_precision()))
        self.loss = self._build_loss()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            _LEARNING_RATE,
            weight_decay=_WEIGHT_DECAY,
            momentum=_MOMENTUM,
            nesterov=True,
            # SGD chooses this itself on CUDA, but not on meta.
            foreach=True if device == "meta" else None,
        )
        self._late: updates.LateUpdate | None = None
        self._unread: updates.Reading | None = None
        if trained:
            updates.fuse(self.optimizer)
            if self._no_scaler:
                self._late = updates.late_update(self.optimizer, self.device, skip=False)

    def compile(self) -> None:
        """Compile what a training compiles: the network and nnU-Net's Dice loss, where nnU-Net compiles."""
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        asked = SimpleNamespace(device=self.device, print_to_log_file=lambda *_: None)
        if not can_compile(self.device) or not nnUNetTrainer._do_i_compile(asked):
            return
        self.network = compiled(self.network)
        loss: Any = self.loss
        loss.loss.dc = torch.compile(loss.loss.dc)

    def _network_precision(self) -> AbstractContextManager[Any]:
        return precision.autocast(self.device, bfloat16=True) if self._bfloat16 else self._precision()

    def _precision(self) -> AbstractContextManager[Any]:
        if not self._mixed:
            return contextlib.nullcontext()
        return torch.autocast("cuda") if self.device.type == "cuda" else CudaAutocast()

    @property
    def scales(self) -> list[tuple[int, ...]]:
        """The scale of each output of deep supervision relative to the patch, per axis, largest first."""
        strides = np.cumprod(np.vstack(self.facts["strides"]), axis=0)[:-1]
        return [tuple(int(v) for v in row) for row in strides]

    def _build_loss(self) -> nn.Module:
        dice = {"batch_dice": self.facts["batch_dice"], "smooth": 1e-5, "ddp": False}
        ignore = self.facts["ignore_label"]
        loss: nn.Module
        if self.facts["regions"]:
            loss = DC_and_BCE_loss(
                {},
                {**dice, "do_bg": True},
                use_ignore_label=ignore is not None,
                dice_class=MemoryEfficientSoftDiceLoss,
            )
        else:
            loss = DC_and_CE_loss(
                {**dice, "do_bg": False}, {}, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss
            )
        weights = np.array([1 / 2**i for i in range(len(self.scales))])
        # nnU-Net drops the lowest output, except where it is the only one.
        if len(weights) > 1:
            weights[-1] = 0
        wrapped: nn.Module = DeepSupervisionWrapper(loss, weights / weights.sum())
        return wrapped

    def batch(self, patch: Sequence[int], batch: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Make data (b, c, *patch) float32 and one target per output: labels int16 (b, 1, ...) or regions bool."""
        regions = self.facts["regions"]
        layers = self.facts["heads"] + (self.facts["ignore_label"] is not None) if regions else 1
        kind = torch.bool if regions else torch.int16
        data = torch.empty((batch, self.facts["channels"], *patch), device=self.device)
        targets = [
            torch.empty(
                (batch, layers, *(p // s for p, s in zip(patch, scale, strict=True))), dtype=kind, device=self.device
            )
            for scale in self.scales
        ]
        if self.device.type != "meta":
            data.normal_()
            for target in targets:
                target.random_(0, 2 if regions else self.facts["heads"])
        return data, targets

    def train(self, patch: Sequence[int], batch: int) -> float:
        """Take one complete training step; return the loss, or 0 on `meta` and where a training reads it later."""
        # The batch lives through backward, as it does in the trainer; the logits do not.
        data, target = self.batch(patch, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss: Any = self._loss_of(data, target)
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()
        if self._late is not None:
            before, self._unread = self._unread, self._late(list(self.network.parameters()), loss.detach().double())
            if before is not None:
                before()
            return 0.0
        value = 0.0 if self.device.type == "meta" else float(loss.detach())
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        waits = self._no_scaler and self.device.type != "meta"
        updates.clip(list(self.network.parameters()), wait=waits)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        return value

    def _loss_of(self, data: torch.Tensor, target: list[torch.Tensor]) -> torch.Tensor:
        """Compute the loss as the trainer does, from float32 logits; each autocast frees its copies of the weights."""
        with self._network_precision():
            output = self.network(data)
        with self._precision():
            output = [o.float() for o in output]
            loss: torch.Tensor = self.loss(output, target)
        return loss

    @torch.no_grad()
    def validate(self, patch: Sequence[int], batch: int) -> float:
        """Compute forward pass and loss without gradients, as in `nnUNetTrainer.validation_step`."""
        data, target = self.batch(patch, batch)
        with self._network_precision():
            output = self.network(data)
            del data
            loss = self.loss(output, target)
        return 0.0 if self.device.type == "meta" else float(loss)

    @torch.no_grad()
    def infer(self, patch: Sequence[int], batch: int) -> None:
        """Run the forward pass of sliding-window inference: no gradients or deep supervision, half-precision logits."""
        decoder = getattr(self.network, "decoder", None)
        if decoder is not None:
            decoder.deep_supervision = False
        try:
            data = torch.empty((batch, self.facts["channels"], *patch), device=self.device)
            if self.device.type != "meta":
                data.normal_()
            with self._network_precision():
                self.network(data)
        finally:
            if decoder is not None:
                decoder.deep_supervision = True
