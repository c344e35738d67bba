"""Memory that runs out is recognised under the names that CUDA's libraries and the compiler give it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._inductor.exc import InductorError

from ppgs.nnunet.distributed import loss as ranked_loss
from ppgs.nnunet.distributed.ranks import ProcessGroup
from ppgs.nnunet.host.out_of_memory import is_out_of_memory
from ppgs.schedule import PlanFacts
from tests.nnunet.trainer.test_faults import weights
from tests.nnunet.trainer.test_trainer import one_stage

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def caused_by(error: Exception) -> RuntimeError:
    outer = RuntimeError("backend='inductor' raised")
    outer.__cause__ = error
    return outer


NAMES = [
    OUT_OF_MEMORY,
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    InductorError(OUT_OF_MEMORY, None),
    caused_by(OUT_OF_MEMORY),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    InductorError(ValueError("no kernel"), None),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", NAMES, ids=str)
def test_recognised(error: RuntimeError) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", [NAMES[2], NAMES[7]], ids=str)
def test_the_step_is_taken_again_in_parts(build: Any, demo_facts: PlanFacts, error: RuntimeError) -> None:
    warnings: list[str] = []
    trainer = build(one_stage(demo_facts), emit=lambda kind, **fields: warnings.append(fields.get("message", "")))
    trainer.configuration_manager.configuration["batch_dice"] = False
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batches: list[int] = []

    def short(_: Any, inputs: tuple[torch.Tensor]) -> None:
        batches.append(len(inputs[0]))
        if len(batches) == 1:
            raise error

    trainer.network.register_forward_pre_hook(short)
    before = weights(trainer)
    trainer.train_step(next(trainer.dataloader_train))
    assert batches == [4, 2, 2]
    assert any("trained in 2 parts" in message for message in warnings)
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_other_errors_of_a_step_are_raised(build: Any, demo_facts: PlanFacts) -> None:
    trainer = build(one_stage(demo_facts))

    def broken(*_: Any) -> None:
        raise OTHERS[0]

    trainer.network.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trainer.run_training()


def test_ranks_tell_each_other_under_one_name() -> None:
    group: Any = ProcessGroup.__new__(ProcessGroup)
    group._exchange = lambda _: group._message.read()
    group.prepare([torch.nn.Parameter(torch.ones(2))])

    def short() -> float:
        raise NAMES[2]

    with pytest.raises(torch.OutOfMemoryError, match="ALLOC_FAILED"):
        group.gradients(short, lambda: False)


def test_what_other_ranks_wait_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []

    class Loss(ranked_loss.RankedLoss):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def start(self) -> None: ...

        def settle(self, times: int, device: torch.device) -> None:
            settled.append(times)

    with pytest.raises(RuntimeError), ranked_loss.settled(Loss(), 3, torch.device("cpu")):
        raise NAMES[2]
    assert settled == [3]
