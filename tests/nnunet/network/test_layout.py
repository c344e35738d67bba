"""Channels-last weights: the same network and training up to rounding, and checkpoints in PyTorch's own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from ppgs.errors import StoppedEarly
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.distributed.message import Message
from ppgs.nnunet.network.layout import lay_channels_last
from ppgs.nnunet.network.small_patches import allow_small_patches
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from ppgs.tasks import DEMO_DATASET, Roots
from tests.helpers.trainers import equal, weights

Build = Callable[..., Any]


@pytest.fixture
def schedule(demo_facts: PlanFacts) -> Schedule:
    """One epoch of three iterations with small patches."""
    base = resolve(Recipe(mode="constant", epochs=1, iterations_per_epoch=3), demo_facts)
    return base.model_copy(update={"stages": (Stage(patch_size=(16, 16, 16), batch_size=2, epochs=1),)})


def is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last_3d)


def tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors in a checkpoint."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors(part)]
    return [value] if isinstance(value, torch.Tensor) else []


def test_logits_are_equal_and_weights_keep_their_layout(build: Build, schedule: Schedule) -> None:
    plain, trainer = build(schedule), build(schedule, channels_last=True)
    assert equal(weights(plain), weights(trainer))
    kernels = [p for p in trainer.network.parameters() if p.dim() == 5]
    assert all(map(is_channels_last, kernels)) and not all(kernel.is_contiguous() for kernel in kernels)
    for patch in ((16, 16, 16), (8, 8, 8), trainer.configuration_manager.patch_size):
        x = torch.randn(2, 1, *patch)
        for a, b in zip(plain.network(x), trainer.network(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_narrow_patches_and_two_dimensions(dimensions: int, autocast: bool) -> None:
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dimensions == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    network = allow_small_patches(
        nn.Sequential(
            conv(3, 4, 3, padding=1), norm(4, affine=True), conv(4, 8, 3, 2, padding=1), norm(8), conv(8, 2, 1)
        )
    )
    other = deepcopy(network)
    lay_channels_last(other)
    assert not all(parameter.is_contiguous() for parameter in other.parameters())
    x = torch.randn(2, 3, *(2,) * dimensions)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        torch.testing.assert_close(
            network(x), other(x), rtol=2e-2 if autocast else 1e-5, atol=1e-2 if autocast else 1e-6
        )


def test_a_training_is_the_same_up_to_rounding(build: Build, schedule: Schedule) -> None:
    plain, trainer = build(schedule), build(schedule, channels_last=True)
    for one in (plain, trainer):
        one.run_training()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(trainer)[name], value, rtol=1e-3, atol=1e-4)
    losses = [one.logger.get_checkpoint()["train_losses"] for one in (plain, trainer)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_stop_and_a_resume_change_no_bit(build: Build, schedule: Schedule) -> None:
    whole = build(schedule, channels_last=True)
    whole.run_training()
    asked = 0

    def stop() -> str | None:
        nonlocal asked
        asked += 1
        return "SIGTERM" if asked > 1 else None

    first = build(schedule, channels_last=True, stop_requested=stop)
    with pytest.raises(StoppedEarly):
        first.run_training()
    content = load_checkpoint(first.settings.run.checkpoint_latest)
    assert all(tensor.is_contiguous() for tensor in tensors(content))
    second = build(schedule, channels_last=True)
    second.restore(content, first.settings.run.checkpoint_latest)
    # The fused update reads weights and momentum in the order of memory.
    for parameter, state in second.optimizer.state.items():
        assert state["momentum_buffer"].stride() == parameter.stride()
    second.run_training()
    assert equal(weights(second), weights(whole))


def test_trainings_of_the_other_layout_and_stock_nnunet_read_the_checkpoint(
    build: Build, schedule: Schedule, demo_roots: Roots
) -> None:
    trainer = build(schedule, channels_last=True)
    trainer.run_training()
    path = trainer.settings.run.checkpoint_final
    content = load_checkpoint(path)
    other = build(schedule)
    other.restore(content, path)
    folder = demo_roots.preprocessed / DEMO_DATASET
    plans, dataset = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    stock = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", 0, dataset, torch.device("cpu"))
    stock.initialize()
    stock.load_checkpoint(str(path))
    x = torch.randn(2, 1, 16, 16, 16)
    for one in (other, stock):
        assert equal(weights(one), weights(trainer))
        assert all(p.is_contiguous() for p in one.network.parameters())
        for state in one.optimizer.state.values():
            assert state["momentum_buffer"].is_contiguous()
        for a, b in zip(one.network(x), trainer.network(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_of_several_ranks_have_the_layout_of_the_weights() -> None:
    network = nn.Conv3d(3, 4, 3)
    lay_channels_last(network)
    parameters = list(network.parameters())
    message = Message(parameters)
    network(torch.randn(1, 3, 5, 5, 5)).sum().backward()
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    message.pack(0.0, stop=False)
    message.hand_out([True] * len(parameters))
    for parameter, gradient in zip(parameters, before, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, gradient)
        assert parameter.grad.stride() == parameter.stride()
    assert not parameters[0].grad.is_contiguous()  # type: ignore[union-attr]
