"""Deterministic training: operations without a fixed order on CUDA are replaced, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ppgs.errors import BadInput
from ppgs.nnunet.data.augmentation import BatchAugmentation, Prepared
from ppgs.nnunet.data.dataset import KeyedBatches
from ppgs.nnunet.host import determinism
from ppgs.schedule import Recipe
from tests.helpers.trainers import equal, weights

# Operations for which PyTorch has no deterministic CUDA kernel (torch.use_deterministic_algorithms) and that a network,
# a loss or an augmentation might use.
NEVER = (
    "avg_pool3d_backward", "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward", "histc", "put_", "kthvalue",
    "max_pool3d_with_indices_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_trilinear3d_backward",
    "reflection_pad3d_backward", "replication_pad3d_backward",
)  # fmt: skip


class Watch(TorchDispatchMode):
    """Collects the operations that are not deterministic on CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.count += 1
        reduced = name.startswith("nll_loss") and name.endswith("forward") and args[3] != 0
        float_sum = name == "cumsum" and args[0].is_floating_point()
        if name in NEVER or reduced or float_sum:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    monkeypatch.setattr("torch.utils.deterministic.fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("given", [None, ":16:8"])
def test_everything_is_set_that_chooses_kernels(given: str | None) -> None:
    environ = {} if given is None else {"CUBLAS_WORKSPACE_CONFIG": given}
    torch.backends.cudnn.benchmark = True
    determinism.use_deterministic_kernels(environ)
    assert environ == {"CUBLAS_WORKSPACE_CONFIG": given or ":4096:8"}
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)


def test_a_workspace_that_is_not_deterministic_is_refused() -> None:
    with pytest.raises(BadInput, match="cuBLAS is not deterministic") as refused:
        determinism.use_deterministic_kernels({"CUBLAS_WORKSPACE_CONFIG": ":0:0"})
    assert refused.value.exit_code == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    with pytest.raises(BadInput, match="upsample_trilinear3d_backward_out_cuda") as refused, determinism.refusals():
        raise RuntimeError(
            "upsample_trilinear3d_backward_out_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )
    assert refused.value.problems[0].where == "--deterministic"
    with pytest.raises(RuntimeError, match="another"), determinism.refusals():
        raise RuntimeError("another")


@pytest.mark.parametrize("size", [2, (1, 2, 2), (2, 1, 3)])
def test_pooling_is_the_same_without_the_kernel_that_is_not_deterministic(size: Any) -> None:
    pool = nn.Sequential(nn.AvgPool3d(size, size))
    x = torch.randn(2, 3, 4, 6, 12, requires_grad=True)
    weight = torch.randn_like(pool(x))
    (pool(x) * weight).sum().backward()
    expected, gradient = pool(x).detach(), x.grad
    determinism.replace_pooling(pool)
    x.grad = None
    with Watch() as watch:
        (pool(x) * weight).sum().backward()
    assert watch.count and not watch.found
    torch.testing.assert_close(pool(x), expected)
    torch.testing.assert_close(x.grad, gradient)
    assert not pool.state_dict()


@pytest.mark.parametrize("pool", [nn.AvgPool3d(3, 2), nn.AvgPool3d(2, 2, padding=1), nn.AvgPool2d(2, 2)])
def test_other_pooling_stays(pool: nn.Module) -> None:
    determinism.replace_pooling(pool)
    assert "forward" not in vars(pool)


@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("channel", [True, False])
def test_cross_entropy_is_the_same_without_its_own_mean(ignored: int, channel: bool) -> None:
    logits = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6)).float()
    target = target if channel else target[:, 0]
    loss = nn.ModuleList([RobustCrossEntropyLoss(ignore_index=ignored)])
    expected = loss[0](logits, target)
    expected.backward()
    gradient, logits.grad = logits.grad, None
    determinism.replace_reduction(loss)
    with Watch() as watch:
        found = loss[0](logits, target)
        found.backward()
    assert watch.count and not watch.found
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits.grad, gradient)


def test_a_loss_that_has_no_mean_stays() -> None:
    loss = TopKLoss()
    determinism.replace_reduction(loss)
    assert not loss._forward_hooks


def test_a_deterministic_training_repeats_and_uses_no_such_operation(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what a GPU would augment itself computed here, too."""
    begin, augment = KeyedBatches.__init__, BatchAugmentation.on
    augmented: list[Prepared] = []

    def unfinished(self: KeyedBatches, *args: Any, **options: Any) -> None:
        begin(self, *args, **{**options, "finished": False})

    def watched(self: BatchAugmentation, device: torch.device, prepared: Prepared) -> Any:
        augmented.append(prepared)
        return augment(self, device, prepared)

    monkeypatch.setattr(KeyedBatches, "__init__", unfinished)
    monkeypatch.setattr(BatchAugmentation, "on", watched)
    recipe = Recipe(mode="constant", epochs=1, iterations_per_epoch=3)
    trained = []
    for deterministic in (True, True, False):
        trainer = build(recipe, deterministic=deterministic)
        if deterministic:
            determinism.use_deterministic_kernels({})
        else:
            torch.use_deterministic_algorithms(False)
        with Watch() as watch:
            trainer.run_training()
        trained.append((weights(trainer), watch.found))
    assert augmented
    assert equal(trained[0][0], trained[1][0])
    assert not trained[0][1]
    # The check sees what the option replaces.
    assert trained[2][1]
