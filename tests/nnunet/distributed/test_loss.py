"""Losses that are no mean over samples: contributions of ranks add up to nnU-Net's loss of the whole batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from ppgs.nnunet.distributed.loss import RankedLoss, announce
from ppgs.nnunet.distributed.ranks import Ranks

CHANNELS, IGNORE = 3, 3


class Meeting:
    """Meeting point at which threads that play ranks add up values."""

    def __init__(self, count: int) -> None:
        self.count, self.barrier = count, threading.Barrier(count, timeout=20)
        self.brought: dict[int, Tensor] = {}


class Threads(Ranks):
    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.count, self._meeting = rank, meeting.count, meeting

    def sum_(self, values: Tensor) -> Tensor:
        self._meeting.brought[self.rank] = values.detach().clone()
        self._meeting.barrier.wait()
        values.copy_(torch.stack([self._meeting.brought[r] for r in range(self.count)]).sum(0))
        self._meeting.barrier.wait()
        return values


def nnunets(kind: str, batch_dice: bool) -> Any:
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "ddp": False}
    if kind.startswith("regions"):
        inner: Any = DC_and_BCE_loss(
            {}, {**dice, "do_bg": True}, use_ignore_label="ignore" in kind, dice_class=MemoryEfficientSoftDiceLoss
        )
    else:
        label = IGNORE if "ignore" in kind else None
        inner = DC_and_CE_loss({**dice, "do_bg": False}, {}, ignore_label=label, dice_class=MemoryEfficientSoftDiceLoss)
    return DeepSupervisionWrapper(inner, [0.7, 0.3, 0.0])


def targets(kind: str, batch: int, size: int) -> Tensor:
    labels = torch.randint(0, CHANNELS, (batch, 1, size, size, size))
    ignored = torch.rand(labels.shape) < 0.4
    if "ignore" in kind:
        ignored[0] = True
    if kind.startswith("regions"):
        regions = torch.cat([labels > n - 1 for n in range(CHANNELS)], 1)
        return torch.cat([regions, ignored], 1) if "ignore" in kind else regions
    return torch.where(ignored, IGNORE, labels) if "ignore" in kind else labels


def per_rank(count: int, do: Callable[[Ranks], Any]) -> list[Any]:
    meeting = Meeting(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(do, [Threads(rank, meeting) for rank in range(count)]))


@pytest.mark.parametrize("held", [(2, 2), (2, 1), (1, 0), (0, 3, 1)])
@pytest.mark.parametrize(
    ("kind", "batch_dice"),
    [("labels", True), ("labels+ignore", True), ("labels+ignore", False), ("regions", True), ("regions+ignore", True)],
)
def test_the_sum_over_ranks_is_the_loss_of_the_batch(kind: str, batch_dice: bool, held: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    batch = sum(held)
    output = [torch.randn(batch, CHANNELS, s, s, s, requires_grad=True) for s in (8, 4, 2)]
    target = [targets(kind, batch, s) for s in (8, 4, 2)]
    loss = nnunets(kind, batch_dice)(output, target)
    expected = torch.autograd.grad(loss, output[:2])
    firsts = [sum(held[:rank]) for rank in range(len(held))]

    def contribution(ranks: Ranks) -> tuple[float, list[Tensor]]:
        own = slice(firsts[ranks.rank], firsts[ranks.rank] + held[ranks.rank])
        ranked = RankedLoss(nnunets(kind, batch_dice), ranks, CHANNELS, batch_dice=batch_dice, ignore="ignore" in kind)
        announce(ranked, batch)
        if not held[ranks.rank]:
            return ranked.absent(torch.device("cpu")), [o[own].detach() for o in output[:2]]
        mine = [o[own].detach().requires_grad_() for o in output]
        value = ranked(mine, [t[own] for t in target])
        return value.item(), list(torch.autograd.grad(value, mine[:2]))

    found = per_rank(len(held), contribution)
    assert sum(value for value, _ in found) == pytest.approx(float(loss), rel=1e-5)
    for level in range(2):
        gradient = torch.cat([gradients[level] for _, gradients in found])
        assert torch.allclose(gradient, expected[level], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_who_breaks_off_leaves_nobody_waiting(done: int) -> None:
    """One rank breaks off after some exchanges of two losses, each of two levels with two exchanges."""
    torch.manual_seed(0)
    output = [torch.randn(1, CHANNELS, s, s, s) for s in (8, 4, 2)]
    target = [targets("labels+ignore", 1, s) for s in (8, 4, 2)]

    def train(ranks: Ranks) -> int:
        ranked = RankedLoss(nnunets("labels+ignore", True), ranks, CHANNELS, batch_dice=True, ignore=True)
        announce(ranked, 2)
        if ranks.rank == 0:
            for _ in range(2):
                ranked(output, target)
        else:
            for _ in range(done):
                ranked._level.exchange_nothing(torch.device("cpu"))
            ranked.settle(2, torch.device("cpu"))
        return ranked._exchange.done

    assert per_rank(2, train) == [8, 8]
