"""The processes that train one run together, and their collectives.

Gradients are added up after the backward pass, all in one message. nnU-Net's way, DistributedDataParallel, would send
them while the pass continues, but averages over ranks as if all had as many samples, wants every rank to have some, and
every parameter to be used; and nnU-Net compiles its networks, whose gradients then come all together anyway.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ppgs.errors import PpgsError, RankLost, from_record
from ppgs.nnunet.host.environment import launched
from ppgs.nnunet.host.out_of_memory import is_out_of_memory

T = TypeVar("T")
# Longer than anything that one rank does alone while the others wait; a lost process is noticed immediately.
_PATIENCE = timedelta(hours=1)
_BEGIN, _END, _ERROR = "ppgs/begin", "ppgs/end", "ppgs/error"


class Ranks:
    """A process that trains alone: rank 0 of 1, whose collectives return its own values."""

    rank = 0
    count = 1
    local_rank = 0
    local_count = 1

    def device(self, device: torch.device) -> torch.device:
        """Return this rank's device of that type."""
        return device

    def begin(self, job: Callable[[], str]) -> None:
        """Rank 0 publishes the serialised job; the others receive it from `wait`."""

    def connect(self, device: torch.device) -> None:
        """Wait for all ranks; collectives work from here on."""

    def end(self) -> None:
        """Rank 0 announces that nothing is left to do."""

    def leave(self) -> None:
        """Leave the group after the last collective."""

    def report(self, error: PpgsError) -> None:
        """Publish the error that ends this rank, for the ranks that lose it."""

    def share(self, value: T) -> T:
        """Return rank 0's value on all ranks."""
        return value

    def agree(self, error: PpgsError | None) -> PpgsError | None:
        """Return the first error of any rank on all ranks; None if there is none."""
        return error

    def gradients(
        self,
        backward: Callable[[], float],
        parameters: Sequence[torch.nn.Parameter],  # noqa: ARG002
    ) -> float:
        """Call `backward`, then add up over ranks the gradients that it left and the loss that it returned.

        Raises torch.OutOfMemoryError on all ranks where any has raised it; what `backward` asks of others must be done.
        """
        return backward()

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over ranks."""
        return values

    def gather(self, value: float) -> list[float]:
        """Return every rank's value, in order."""
        return [value]

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over ranks in place, on the training device."""
        return values


class ProcessGroup(Ranks):
    """One of several processes started by PyTorch's launcher; raises `RankLost` if another one is gone."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.rank, self.count = int(environ["RANK"]), launched(environ)
        self.local_rank, self.local_count = int(environ["LOCAL_RANK"]), int(environ["LOCAL_WORLD_SIZE"])
        with self._others():
            store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        # The launcher's store outlives a restart: what was said before it is not for those who came after.
        attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]

    def device(self, device: torch.device) -> torch.device:
        return torch.device(device.type, self.local_rank) if device.type == "cuda" else device

    def begin(self, job: Callable[[], str]) -> None:
        with self._others():
            self._store.set(_BEGIN, job())

    def wait(self) -> str | None:
        """Return what rank 0 gave to `begin`; None if it ended instead. Signals are handled meanwhile."""
        while not self.has_ended():
            with self._others():
                if self._store.check([_BEGIN]):
                    return str(self._store.get(_BEGIN).decode())
            time.sleep(0.2)
        return None

    def has_ended(self) -> bool:
        """Return whether the first rank has nothing left to do."""
        with self._others():
            return bool(self._store.check([_END]))

    def end(self) -> None:
        with self._others():
            self._store.set(_END, "1")

    def leave(self) -> None:
        # Its threads would end a process that is left to end on its own with an abort, now and then.
        if dist.is_initialized():
            dist.destroy_process_group()

    def report(self, error: PpgsError) -> None:
        with self._others():
            self._store.set(_ERROR, json.dumps(error.to_record()))

    def connect(self, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if self.local_count == self.count:
            # All on this machine: no need for its name to be resolved, nor for a network. NCCL does not read it.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # What ranks agree upon goes by way of the CPU, so that a process that is gone is noticed immediately, and a GPU
        # that is at work is not waited for.
        with self._others():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=self._store,
                rank=self.rank,
                world_size=self.count,
                timeout=_PATIENCE,
            )

    def share(self, value: T) -> T:
        holder: list[Any] = [value]
        with self._others():
            dist.broadcast_object_list(holder, src=0)
        shared: T = holder[0]
        return shared

    def agree(self, error: PpgsError | None) -> PpgsError | None:
        if not self.sum(np.array([float(error is not None)]))[0]:
            return None
        records: list[dict[str, Any] | None] = [None] * self.count
        with self._others():
            dist.all_gather_object(records, None if error is None else error.to_record())
        return from_record(next(record for record in records if record is not None))

    def gradients(self, backward: Callable[[], float], parameters: Sequence[torch.nn.Parameter]) -> float:
        failed, loss, flat = None, 0.0, torch.empty(0)
        try:
            loss = backward()
            # Here, as it takes memory too.
            flat = torch.cat([(p if p.grad is None else p.grad).detach().flatten() for p in parameters])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = str(error)
        used = [float(p.grad is not None) for p in parameters]
        told = self.sum(np.array([float(failed is not None), loss, *used]))
        if told[0]:
            raise torch.OutOfMemoryError(failed or "on another rank")
        position = 0
        gradients = []
        for parameter in parameters:
            gradients.append(flat[position : position + parameter.numel()].view_as(parameter))
            if parameter.grad is None:
                gradients[-1].zero_()
            position += parameter.numel()
        self.sum_(flat)
        for parameter, gradient, ranks in zip(parameters, gradients, told[2:], strict=True):
            # Parameters unused on all ranks keep no gradient, so that the optimiser skips them.
            parameter.grad = gradient if ranks else None
        return float(told[1])

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        tensor = torch.from_numpy(np.array(values, np.float64))
        with self._others():
            dist.all_reduce(tensor)
        summed: NDArray[np.float64] = tensor.numpy()
        return summed

    def gather(self, value: float) -> list[float]:
        one_hot = np.zeros(self.count)
        one_hot[self.rank] = value
        return [float(v) for v in self.sum(one_hot)]

    def sum_(self, values: Tensor) -> Tensor:
        with self._others():
            dist.all_reduce(values)
        return values

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            if is_out_of_memory(problem):
                raise
            raise self._lost(problem) from problem

    def _lost(self, problem: RuntimeError) -> PpgsError:
        try:
            if self._store.check([_ERROR]):
                return from_record(json.loads(self._store.get(_ERROR)))
        except (RuntimeError, AttributeError):
            pass  # who held the store is gone too
        sys.stderr.write(f"process {self.rank}: {problem}\n")
        return RankLost("another process of the training is gone", "", "'ppgs resume' continues")
