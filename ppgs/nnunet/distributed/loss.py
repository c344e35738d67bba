"""nnU-Net's losses over a batch that several ranks hold, where a loss is no mean over samples.

Batch Dice adds up overlaps over the whole batch, and an ignore label makes cross entropy a mean over the voxels that
count: neither is to be had from the ranks' own losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.out_of_memory import is_out_of_memory


class RankedLoss(nn.Module):
    """A rank's contribution to the loss over all ranks' samples: values and gradients of all ranks add up to it.

    `loss` is nnU-Net's, with deep supervision or without. `announce` the number of samples of all ranks before each
    call; a rank without samples calls `absent` instead. `channels` is the number of the network's outputs.
    """

    def __init__(self, loss: Any, ranks: Ranks, channels: int, *, batch_dice: bool, ignore: bool) -> None:
        super().__init__()
        factors = getattr(loss, "weight_factors", None)
        self._loss = loss
        self._exchange = _Exchange(ranks)
        inner = loss if factors is None else loss.loss
        self._factors: list[float] = [1.0] if factors is None else [float(f) for f in factors if f]
        self._dice = SummedDice(inner.dc, self._exchange, channels) if batch_dice else None
        self._level = _Level(inner, self._exchange, self._dice, ignore=ignore)
        if self._dice is not None:
            inner.dc = self._dice
        if factors is not None:
            loss.loss = self._level

    def forward(self, output: Any, target: Any) -> Tensor:
        loss: Tensor = (self._loss if isinstance(output, (list, tuple)) else self._level)(output, target)
        return loss

    def absent(self, device: torch.device) -> float:
        """Return the contribution of a rank that has no sample of the batch."""
        return sum(factor * self._level.absent(device) for factor in self._factors)

    def settle(self, times: int, device: torch.device) -> None:
        """After a local failure, issue the remaining collectives of `times` calls so that other ranks do not hang."""
        owed = times * len(self._factors) * self._level.exchanges
        while self._exchange.done < owed:
            self._level.exchange_nothing(device)

    def start(self) -> None:
        """Reset the count that `settle` uses."""
        self._exchange.done = 0


def announce(loss: Any, whole: int) -> None:
    """Set for a loss over several ranks how many samples its next call is a part of."""
    if isinstance(loss, RankedLoss):
        loss._level.whole = whole


def absent(loss: Any, device: torch.device) -> float:
    """Return the contribution to the loss of a rank that has no samples; 0 if losses are simply added."""
    return loss.absent(device) if isinstance(loss, RankedLoss) else 0.0


def break_off(loss: Any, times: int, device: torch.device) -> None:
    """Do what the other ranks wait for in this many calls of the loss, without a sample and without a loss."""
    if isinstance(loss, RankedLoss):
        loss.start()
        loss.settle(times, device)


@contextmanager
def settled(loss: Any, times: int, device: torch.device) -> Iterator[None]:
    """If memory runs out in the block, issue the collectives of the remaining calls of the loss."""
    if not isinstance(loss, RankedLoss):
        yield
        return
    loss.start()
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            loss.settle(times, device)
        raise


class _Exchange:
    """Sums over ranks, with a count of them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.done = ranks, 0

    def __call__(self, values: Tensor) -> Tensor:
        self.done += 1
        return self.ranks.sum_(values)


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks whose gradient counts `ranks`-fold, since each rank contributes 1/ranks of the loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, exchange: _Exchange) -> Tensor:
        ctx.count = exchange.ranks.count
        return exchange(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.count, None


class SummedDice(nn.Module):
    """Soft Dice over the samples of all ranks, negative as nnU-Net has it (`MemoryEfficientSoftDiceLoss`)."""

    def __init__(self, dice: Any, exchange: _Exchange, channels: int) -> None:
        super().__init__()
        self._activation, self._background, self._smooth = dice.apply_nonlin, bool(dice.do_bg), float(dice.smooth)
        self._exchange = exchange
        self._shape = (3, channels if self._background else channels - 1)

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Compute the loss of logits (b, c, z, y, x), labels (b, 1, ...) or regions (b, c, ...), mask (b, 1, ...)."""
        predicted = x if self._activation is None else self._activation(x)
        with torch.no_grad():
            if y.shape == predicted.shape:
                truth = y.float()
            else:
                truth = torch.zeros_like(predicted, dtype=torch.float32).scatter_(1, y.long(), 1.0)
        first = 0 if self._background else 1
        predicted, truth = predicted[:, first:], truth[:, first:]
        if loss_mask is not None:
            predicted, truth = predicted * loss_mask, truth * loss_mask
        over = (0, *range(2, x.dim()))
        sums = [part.sum(over, dtype=torch.float32) for part in (predicted * truth, predicted, truth)]
        together: Tensor = _SumOverRanks.apply(torch.stack(sums), self._exchange)  # type: ignore[no-untyped-call]
        return self._of(together)

    def absent(self, device: torch.device) -> float:
        return float(self._of(self._exchange(torch.zeros(self._shape, device=device))))

    def _of(self, sums: Tensor) -> Tensor:
        overlap, predicted, truth = sums
        dice: Tensor = (2 * overlap + self._smooth) / (predicted + truth + self._smooth).clamp_min(1e-8)
        return -dice.mean()


class _Level(nn.Module):
    """One output's loss: nnU-Net's own, its two parts weighted by the rank's share of them."""

    def __init__(self, loss: Any, exchange: _Exchange, dice: SummedDice | None, *, ignore: bool) -> None:
        super().__init__()
        self._loss, self._exchange, self._dice, self._ignore = loss, exchange, dice, ignore
        self._weights = float(loss.weight_ce), float(loss.weight_dice)
        self.whole = 1
        self.exchanges = int(ignore) + int(dice is not None)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        ranks, samples = self._exchange.ranks.count, len(output) / self.whole
        share = self._share_of_voxels(target) if self._ignore else samples
        ce, dice = self._weights
        self._loss.weight_ce = ce * share
        self._loss.weight_dice = dice * (samples if self._dice is None else 1 / ranks)
        loss: Tensor = self._loss(output, target)
        return loss

    def _share_of_voxels(self, target: Tensor) -> float:
        label = getattr(self._loss, "ignore_label", None)
        # With regions, the last channel marks ignored voxels.
        counted = (target != label) if label is not None else target[:, -1:] == 0
        own = counted.sum(dtype=torch.float64).reshape(1)
        total = float(self._exchange(own.clone()))
        return float(own) / total if total else 0.0

    def absent(self, device: torch.device) -> float:
        if self._ignore:
            self._exchange(torch.zeros(1, dtype=torch.float64, device=device))
        if self._dice is None:
            return 0.0
        return self._weights[1] * self._dice.absent(device) / self._exchange.ranks.count

    def exchange_nothing(self, device: torch.device) -> None:
        """Take part in the next exchange with zeros."""
        if self._dice is None or (self._ignore and self._exchange.done % 2 == 0):
            self._exchange(torch.zeros(1, dtype=torch.float64, device=device))
        else:
            self._exchange(torch.full(self._dice._shape, math.nan, device=device))
