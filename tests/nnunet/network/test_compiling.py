"""Number of graphs that a curriculum compiles, counted with a counting backend."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from ppgs.nnunet.host import devices
from ppgs.nnunet.host.devices import compiled
from ppgs.nnunet.network.small_patches import allow_small_patches
from ppgs.schedule import Recipe

SIZES = [(4, 4, 4), (8, 4, 4), (8, 8, 4), (8, 8, 8), (12, 8, 8), (12, 12, 8)]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.InstanceNorm3d(4, affine=True),
        nn.LeakyReLU(),
        nn.Conv3d(4, 4, 3, 2, padding=1),
        nn.Conv3d(4, 4, 3, 2, padding=1),
    )


def graphs(counter: CompileCounter, run: Any, sizes: Sequence[tuple[int, ...]], device: str = "cpu") -> list[int]:
    """Return the number of graphs after each size."""
    found = []
    for size in sizes:
        run(
            torch.empty(2, 1, *size, device=device).normal_()
            if device == "cpu"
            else torch.empty(2, 1, *size, device=device)
        )
        found.append(counter.frame_count)
    return found


def test_every_size_has_its_own_graph_whatever_came_before() -> None:
    counter = CompileCounter()
    run = compiled(allow_small_patches(network()), backend=counter)
    # Each size is compiled once, and none of them on a graph for any size.
    assert graphs(counter, run, [*SIZES, *SIZES]) == [1, 2, 3, 4, 5, 6, *([6] * 6)]


def test_more_sizes_than_dynamo_compiles_by_default() -> None:
    counter = CompileCounter()
    run = compiled(nn.Conv3d(1, 1, 1), backend=counter)
    sizes = [(n, 1, 1) for n in range(2, 22)]
    assert graphs(counter, run, sizes)[-1] == len(sizes)


def test_the_trainer_compiles_its_network_so(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppgs.nnunet.trainer import trainer as module

    asked: list[dict[str, Any]] = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(options) or compile_(model, **options))
    monkeypatch.setattr(module.PpgsTrainer, "_do_i_compile", lambda self: True)
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))
    assert {"dynamic": False} in asked
    assert isinstance(trainer.network, torch._dynamo.OptimizedModule)
    assert not isinstance(trainer._module, torch._dynamo.OptimizedModule)


def test_nothing_is_compiled_for_a_gpu_that_triton_does_not_know(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_compile", raising=False)
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    assert trainer._do_i_compile()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert not trainer._do_i_compile()


def test_a_training_that_is_not_compiled_says_so(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppgs.nnunet.trainer import trainer as module

    warnings: list[str] = []
    monkeypatch.setattr(module, "can_compile", lambda _: False)
    build(
        Recipe(mode="constant", epochs=1, iterations_per_epoch=1),
        emit=lambda kind, **fields: warnings.append(fields["message"]) if kind == "warning" else None,
    )
    assert warnings == ["the GPU is too old to compile for: the network trains uncompiled"]


def test_convolutions_of_narrow_patches_need_no_graph_of_their_own_on_a_gpu() -> None:
    """On `meta` tensors, which are no CPU's either: as many graphs as nnU-Net's own layers need."""
    sizes = [(16, 16, 16), (8, 8, 8), (8, 8, 4), (4, 4, 4), (2, 2, 2), (4, 2, 8), (32, 8, 8)]
    needed = []
    stock = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, 2, padding=1)).to("meta")
    for layers in (stock, allow_small_patches(deepcopy(stock))):
        torch._dynamo.reset()
        counter = CompileCounter()
        needed.append(graphs(counter, torch.compile(layers, backend=counter), sizes, "meta")[-1])
    assert needed[0] == needed[1]


def test_inductor_is_left_its_compile_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads their number when it is imported: what is set later has no effect, and hides what a user set."""
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    before = torch.get_num_threads()
    devices.set_threads(torch.device("cpu"))
    torch.set_num_threads(before)
    assert "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ
