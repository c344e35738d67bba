"""The processes that train one run together, and their collectives.

Gradients are added up after the backward pass, all in one message (`ppgs.nnunet.distributed.message`), with which the
ranks also tell each other their losses, that memory ran out, or that they want to stop. nnU-Net's way,
DistributedDataParallel, would send gradients while the pass continues, but averages over ranks as if all had as many
samples, wants every rank to have some, and every parameter to be used; and nnU-Net compiles its networks, whose
gradients then come all together anyway.
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
from ppgs.nnunet.distributed.message import Message, Told
from ppgs.nnunet.host.environment import launched
from ppgs.nnunet.host.out_of_memory import is_out_of_memory

T = TypeVar("T")
# Longer than anything that one rank does alone while the others wait; a lost process is noticed immediately.
_PATIENCE = timedelta(hours=1)
# Seconds until a message that the other ranks do not complete is given up, once this one was asked to stop.
_GIVE_UP = 10.0
# Seconds between two looks at whether another rank has reported an error, while one of its messages is waited for.
_LOOK = 1.0
_BEGIN, _READY, _END, _ERROR = "ppgs/begin", "ppgs/ready", "ppgs/end", "ppgs/error"


class Ranks:
    """A process that trains alone: rank 0 of 1, whose collectives return its own values."""

    rank = 0
    count = 1
    local_rank = 0
    local_count = 1
    # Whether the ranks agree on a stop before the next iteration of the training.
    may_stop = True

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

    def prepare(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Make room for the gradients of these parameters, once for the whole run."""

    def gradients(
        self,
        backward: Callable[[], float | Tensor],
        wants_to_stop: Callable[[], bool],  # noqa: ARG002
    ) -> float:
        """Call `backward`, then add up over ranks the gradients that it left and the loss that it returned.

        Raises torch.OutOfMemoryError on all ranks where any has raised it; what `backward` asks of others must be done.
        Raises the error of a rank that has no part in the iteration (`break_off`). Sets `may_stop` to whether any rank
        wants to stop.
        """
        return float(backward())

    def break_off(self) -> None:
        """Take part in the others' next `gradients` with nothing: they will `agree` on an error, as this rank must."""

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
        self._attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = self._connection()
        # A connection of its own: while the group forms, the other one waits for an hour, and nobody else can ask.
        self._watched = self._connection() if self.rank else self._store
        self.may_stop = False

    def _connection(self) -> Any:
        with self._others():
            store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        # The launcher's store outlives a restart: what was said before it is not for those who came after.
        return dist.PrefixStore(f"attempt-{self._attempt}", store)  # type: ignore[attr-defined]

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
        """Return whether the first rank has nothing left to do; another thread may ask while this one connects."""
        with self._others():
            return bool(self._watched.check([_END]))

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
            self._meet()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=self._store,
                rank=self.rank,
                world_size=self.count,
                timeout=_PATIENCE,
            )

    def _meet(self) -> None:
        """Wait until every rank is about to connect, so that nothing is left that one of them could end by alone.

        PyTorch would wait for a rank that has reported an error instead. Signals are handled meanwhile.
        """
        self._store.set(f"{_READY}/{self.rank}", "1")
        everyone, begun = [f"{_READY}/{rank}" for rank in range(self.count)], time.monotonic()
        while not self._store.check(everyone):
            if self._store.check([_ERROR]):
                raise RuntimeError("another process has reported an error")
            if time.monotonic() - begun > _PATIENCE.total_seconds():
                raise RuntimeError("another process does not come to the others")
            time.sleep(0.1)

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

    def prepare(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._message = Message(parameters)

    def gradients(self, backward: Callable[[], float | Tensor], wants_to_stop: Callable[[], bool]) -> float:
        short = None
        try:
            self._message.pack(backward(), stop=wants_to_stop())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Only its text: its traceback would keep the step's tensors alive.
            short = str(error)
            self._message.pack_nothing(short=True)
        told = self._exchange(wants_to_stop)
        if told.broken:
            why = self.agree(None)
            assert why is not None
            raise why
        if told.short:
            raise torch.OutOfMemoryError(short or "on another rank")
        self.may_stop = told.stop
        self._message.hand_out(told.used)
        return told.loss

    def break_off(self) -> None:
        self._message.pack_nothing(broken=True)
        self._exchange(lambda: False)

    def _exchange(self, wants_to_stop: Callable[[], bool]) -> Told:
        with self._others():
            work = dist.all_reduce(self._message.values, async_op=True)
            if self._message.values.device.type == "cuda":
                _await(work, wants_to_stop, lambda: bool(self._store.check([_ERROR])))
            work.wait()
            return self._message.read()

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


def _await(work: Any, wants_to_stop: Callable[[], bool], has_failed: Callable[[], bool]) -> None:
    """Wait for a message of NCCL, which never completes if a process is gone.

    Such a process has reported its error, or the launcher notices that it is gone and asks the others to stop: then
    this one raises RuntimeError, where Gloo would at once.
    """
    asked: float | None = None
    looked = time.monotonic()
    while not work.is_completed():
        if time.monotonic() - looked > _LOOK:
            looked = time.monotonic()
            if has_failed():
                raise RuntimeError("another process has reported an error")
        if asked is None and wants_to_stop():
            asked = time.monotonic()
        if asked is not None and time.monotonic() - asked > _GIVE_UP:
            raise RuntimeError("no answer from another process")
        time.sleep(5e-5)
