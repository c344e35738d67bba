from __future__ import annotations

import pytest
import torch
from torch import nn

from ppgs.nnunet.network.small_patches import allow_small_patches


def pair(kind: type[nn.Module], **options: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    stock = kind(4, affine=True, **options)
    nn.init.normal_(stock.weight)  # type: ignore[arg-type]
    nn.init.normal_(stock.bias)  # type: ignore[arg-type]
    ours = kind(4, affine=True, **options)
    ours.load_state_dict(stock.state_dict())
    return stock, allow_small_patches(nn.Sequential(ours))[0]  # type: ignore[index]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("track_running_stats", [True, False])
@pytest.mark.parametrize(("kind", "shape"), [(nn.InstanceNorm2d, (2, 4, 5, 1)), (nn.InstanceNorm3d, (2, 4, 3, 2, 1))])
def test_equal_to_stock_wherever_stock_works(
    kind: type[nn.Module], shape: tuple[int, ...], track_running_stats: bool, training: bool
) -> None:
    stock, ours = pair(kind, track_running_stats=track_running_stats)
    x = torch.randn(shape)
    assert torch.equal(stock.train(training)(x), ours.train(training)(x))
    assert stock.state_dict().keys() == ours.state_dict().keys()


@pytest.mark.parametrize(("kind", "shape"), [(nn.InstanceNorm2d, (2, 4, 1, 1)), (nn.InstanceNorm3d, (2, 4, 1, 1, 1))])
def test_a_single_voxel_becomes_the_bias_and_stock_stays_as_it_is(
    kind: type[nn.Module], shape: tuple[int, ...]
) -> None:
    stock, ours = pair(kind)
    x = torch.randn(shape, requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        stock(x)
    y = ours(x)
    assert torch.equal(y.flatten(1), ours.bias.expand(2, 4))  # type: ignore[operator]
    (y * torch.randn(shape)).sum().backward()
    assert torch.equal(ours.weight.grad, torch.zeros(4))  # type: ignore[arg-type]
    assert torch.equal(x.grad, torch.zeros_like(x))  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (2, 2, 2), (3, 2, 1), (3, 3, 3), (2, 8, 8), (8, 1, 2)])
def test_gradients_in_bfloat16_are_those_of_float32(size: tuple[int, ...], stride: int) -> None:
    torch.manual_seed(0)
    layer = allow_small_patches(nn.Sequential(nn.Conv3d(32, 64, 3, stride, padding=1)))[0]  # type: ignore[index]
    x, gradients = torch.randn(2, 32, *size), []
    direction = torch.randn_like(layer(x))
    for bfloat16 in (True, False):
        layer.zero_grad()
        # Reused memory is filled with NaN: a kernel that reads what it never wrote is found.
        for power in range(8, 20):
            torch.full((1 << power,), torch.nan)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = layer(x)
        y.backward(direction.to(y.dtype))
        gradients.append(layer.weight.grad.clone())
    ours, exact = gradients
    assert torch.linalg.vector_norm(ours - exact) < 0.02 * torch.linalg.vector_norm(exact)
