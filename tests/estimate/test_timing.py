"""Timing measures the step that trains, on the GPU that this process sees."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ppgs.errors import DoesNotFit
from ppgs.estimate.cards import host_name
from ppgs.estimate.scaling import peak
from ppgs.nnunet.host import devices
from ppgs.nnunet.network import optimiser as updates
from ppgs.nnunet.network import precision
from ppgs.nnunet.probing import step as step_module
from ppgs.nnunet.probing import timing
from ppgs.nnunet.probing.autocast import CudaAutocast
from ppgs.nnunet.probing.step import Step
from ppgs.nnunet.probing.trace import _record
from ppgs.nnunet.trainer.steps import Steps

from .test_tracer import NETWORKS

FACTS = NETWORKS["plain"].model_dump(mode="json")


class Nvml:
    """Two GPUs, of which CUDA sees the second one alone, as its first."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.used = {"GPU-aaaa": 1000, "GPU-bbbb": 7000}

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return list(self.used)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.used[handle]


def test_energy_is_that_of_the_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="bbbb"))
    assert timing._Energy(torch.device("cuda"))._read() == 7.0


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_the_loss_is_of_float32_logits_as_in_the_trainer(mixed: bool, trained: bool) -> None:
    step = Step(FACTS, "meta", mixed=mixed, trained=trained)
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    network, loss = step.network, step.loss

    class Watched(nn.Module):
        def forward(self, output: list[torch.Tensor], target: Any) -> torch.Tensor:
            seen.extend((made.dtype, given.dtype) for made, given in zip(outputs[-1], output, strict=True))
            result: torch.Tensor = loss(output, target)
            return result

    outputs: list[list[torch.Tensor]] = []
    network.register_forward_hook(lambda _, __, output: outputs.append(output))
    step.loss = Watched()
    step.train((8, 8, 8), 2)
    assert seen == [(torch.float16 if mixed else torch.float32, torch.float32)] * 2


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("heads", [3, 50])
def test_a_step_holds_the_tensors_of_the_trainers(monkeypatch: pytest.MonkeyPatch, heads: int, trained: bool) -> None:
    """The trainer drops the logits before the backward pass, which shows with many classes."""
    monkeypatch.setattr(precision, "autocast", lambda *_, **__: CudaAutocast())

    def made() -> Step:
        return Step(FACTS | {"heads": heads}, "meta", mixed=True, trained=trained)

    def peak_of(step: Step) -> int:
        return peak(_record(step, "train", [32, 32, 32], 2)["events"])

    step, steps = made(), object.__new__(Steps)
    trainer = SimpleNamespace(
        device=step.device, network=step.network, loss=step.loss, settings=SimpleNamespace(bfloat16=False)
    )
    steps._trainer = trainer
    monkeypatch.setattr(step, "_loss_of", lambda data, target: steps._loss_of(data, target, 2))
    assert peak_of(made()) == peak_of(step)


def test_a_step_in_bfloat16_is_that_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    step = Step(FACTS, "cpu", trained=True)
    dtypes: list[torch.dtype] = []
    step.network.register_forward_hook(lambda _, __, output: dtypes.append(output[0].dtype))
    step.train((8, 8, 8), 2)
    assert dtypes == [torch.bfloat16]
    assert step.optimizer.param_groups[0]["fused"]


def test_a_step_on_a_gpu_without_a_loss_scale_reads_the_loss_one_step_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensors of the CPU; the weights are those of steps that wait."""
    found: list[list[torch.Tensor]] = []
    read: list[int] = []
    own = updates.Reading.__call__
    monkeypatch.setattr(updates.Reading, "__call__", lambda reading: read.append(1) or own(reading))
    for late in (False, True):
        if late:
            monkeypatch.setattr(updates, "late_update", updates.LateUpdate)
        torch.manual_seed(0)
        step = Step(FACTS, "cpu", trained=True)
        batch = step.batch((8, 8, 8), 2)
        monkeypatch.setattr(step, "batch", lambda *_, batch=batch: batch)
        if late:
            monkeypatch.setattr(torch.Tensor, "__float__", lambda _: pytest.fail("waits for the device"))
        counts = []
        for _ in range(3):
            step.train((8, 8, 8), 2)
            counts.append(len(read))
        assert counts == ([0, 1, 2] if late else [0, 0, 0])
        found.append([parameter.detach() for parameter in step.network.parameters()])
    for waiting, late_one in zip(*found, strict=True):
        torch.testing.assert_close(late_one, waiting, rtol=1e-4, atol=1e-6)


def test_what_a_training_compiles_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    made: list[Any] = []
    monkeypatch.setattr(step_module, "compiled", lambda network: made.append(network) or network)
    monkeypatch.setattr(torch, "compile", lambda loss: made.append(loss) or loss)
    step = Step(FACTS, "cpu", trained=True)
    step.compile()
    # nnU-Net compiles nothing on the CPU.
    assert not made
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda _: True)
    monkeypatch.setattr(step_module, "can_compile", lambda _: False)
    step.compile()
    assert not made
    monkeypatch.setattr(step_module, "can_compile", lambda _: True)
    step.compile()
    assert [type(part).__name__ for part in made] == ["PlainConvUNet", "MemoryEfficientSoftDiceLoss"]


@pytest.mark.parametrize(("clock", "threads"), [("wall", 3), ("cpu", 1)])
def test_steps_on_the_cpu_use_the_threads_of_a_training(
    monkeypatch: pytest.MonkeyPatch, clock: str, threads: int
) -> None:
    used: set[int] = set()
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "cpu_count", lambda: 3)
    monkeypatch.setattr(Step, "train", lambda *_: used.add(torch.get_num_threads()) or 0.0)
    monkeypatch.setattr(Step, "validate", lambda *_: 0.0)
    request = {"facts": FACTS, "mixed": False, "device": "cpu", "budget": 0, "points": [((8, 8, 8), 2)]}
    try:
        assert timing.measure({**request, "clock": clock})["device"] == host_name("cpu", threads)
    finally:
        torch.set_num_threads(before)
    assert used == {threads}


def test_a_device_without_room_for_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Step, "train", full)
    request = {"facts": FACTS, "mixed": False, "device": "cpu", "budget": 1, "points": [((8, 8, 8), 2)]}
    with pytest.raises(DoesNotFit, match="8x8x8 with batch 2 does not fit") as told:
        timing.measure(request)
    assert told.value.problems[0].remedy
