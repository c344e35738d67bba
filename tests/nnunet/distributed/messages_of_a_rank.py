"""One of several processes that train a small network: argument: OUT.

Each writes OUT/RANK.pth: its weights with this project's message and with DistributedDataParallel, the collective
operations of each iteration, and what it learned of memory, stops and ranks that broke off.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ppgs.errors import PpgsError, StorageFailed
from ppgs.nnunet.distributed.ranks import ProcessGroup, Ranks
from ppgs.nnunet.host.environment import launched
from ppgs.schedule.shares import Cut

STEPS, BATCH = 6, 5


class Network(nn.Module):
    """With a parameter that no rank uses and one that is used by the first sample alone, thus by one rank."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 3, 1)
        self.unused, self.of_the_first = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: torch.Tensor, *, first: bool) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.relu(self.first(images)))
        return torch.cat([found[:1] * self.of_the_first, found[1:]]) if first else found


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(3)
    return [
        (torch.randn(BATCH, 2, 8, 8, generator=drawn), torch.randint(3, (BATCH, 8, 8), generator=drawn))
        for _ in range(STEPS)
    ]


def optimiser(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)


class Training:
    def __init__(self, ranks: Ranks) -> None:
        torch.manual_seed(1)
        self.ranks, self.network = ranks, Network()
        self.optimizer = optimiser(self.network)
        self.losses: list[float] = []
        (self.piece,) = Cut(ranks.rank, ranks.count).pieces(BATCH, 1)
        self.slots = Cut(ranks.rank, ranks.count).slots(BATCH, 1)
        ranks.prepare(list(self.network.parameters()))

    def loss(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """This rank's part of the loss of the batch."""
        own = list(self.slots)
        found = network(images[own], first=0 in own)
        mean: torch.Tensor = nn.functional.cross_entropy(found, labels[own])
        return mean * self.piece.weight

    def backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.network, images, labels)
        loss.backward()
        return loss.detach()

    def step(self, images: torch.Tensor, labels: torch.Tensor, *, stop: bool = False) -> None:
        self.losses.append(self.ranks.gradients(lambda: self.backward(images, labels), lambda: stop))
        self.optimizer.step()


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


class Counted:
    """Counts the collective operations that are begun within."""

    names = ("all_reduce", "broadcast", "broadcast_object_list", "all_gather_object", "barrier")

    def __enter__(self) -> list[str]:
        self._before = {name: getattr(dist, name) for name in self.names}
        self.found: list[str] = []
        for name, plain in self._before.items():
            setattr(dist, name, self._counting(name, plain))
        return self.found

    def _counting(self, name: str, plain: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            self.found.append(name)
            return plain(*given, **options)

        return call

    def __exit__(self, *_: object) -> None:
        for name, plain in self._before.items():
            setattr(dist, name, plain)


def by_reference(training: Training) -> dict[str, torch.Tensor]:
    """The same by DistributedDataParallel, which takes means over ranks."""
    torch.manual_seed(1)
    network = DistributedDataParallel(Network(), find_unused_parameters=True)
    optimizer = optimiser(network)
    for images, labels in batches():
        optimizer.zero_grad(set_to_none=True)
        (training.loss(network, images, labels) * training.ranks.count).backward()
        optimizer.step()
    return state(network.module)


def events(training: Training, ranks: ProcessGroup) -> dict[str, Any]:
    """Rank 1 runs out of memory, wants to stop, and at last breaks off."""
    told: dict[str, Any] = {}
    images, labels = batches()[0]
    second = ranks.rank == 1

    def short() -> torch.Tensor:
        if second:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return training.backward(images, labels)

    try:
        ranks.gradients(short, lambda: False)
    except torch.OutOfMemoryError as error:
        told["short"] = str(error)
    told["asks"] = [ranks.may_stop]
    for stop in (False, second, False):
        training.step(images, labels, stop=stop)
        told["asks"].append(ranks.may_stop)
    before = state(training.network)
    mine = StorageFailed("a case cannot be read", "somewhere", "mount it") if second else None
    try:
        if second:
            ranks.break_off()
            agreed = ranks.agree(mine)
            assert agreed is not None
            raise agreed
        training.step(images, labels)
    except PpgsError as error:
        told["error"] = type(error).__name__
    told["kept"] = all(torch.equal(before[name], value) for name, value in training.network.state_dict().items())
    return told


def main() -> None:
    torch.set_num_threads(1)
    ranks: Any = ProcessGroup(os.environ) if launched(os.environ) > 1 else Ranks()
    ranks.connect(torch.device("cpu"))
    training = Training(ranks)
    addresses, collectives = [], []
    for images, labels in batches():
        with Counted() as found:
            training.step(images, labels)
        collectives.append(found)
        first = training.network.first.weight.grad
        assert first is not None and training.network.unused.grad is None
        addresses.append(first.data_ptr())
    result: dict[str, Any] = {"weights": state(training.network), "losses": list(training.losses)}
    if ranks.count > 1:
        result |= {"collectives": collectives, "buffers": len(set(addresses)), "reference": by_reference(training)}
        result |= events(training, ranks)
    torch.save(result, Path(sys.argv[1]) / f"{ranks.rank}.pth")
    ranks.leave()
