"""Layers for patches whose bottleneck is only a voxel or two, which nnU-Net's networks refuse."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm


def _normalise(self: _InstanceNorm, input: torch.Tensor) -> torch.Tensor:
    """Apply `instance_norm` without its refusal of a single voxel, whose normalised value is 0."""
    use_input_statistics = self.training or not self.track_running_stats
    if use_input_statistics and math.prod(input.shape[2:]) == 1:
        # Exactly what is left of (x - mean) / deviation * weight + bias: PyTorch's kernels leave their rounding, 316
        # times as large. Written so that NaN and infinity are still seen.
        zero = input - input
        if self.weight is None:
            return zero
        shape = (1, -1) + (1,) * (input.dim() - 2)
        return zero * self.weight.view(shape) + self.bias.view(shape)
    return torch.instance_norm(
        input,
        self.weight,
        self.bias,
        self.running_mean,
        self.running_var,
        use_input_statistics,
        0.0 if self.momentum is None else self.momentum,
        self.eps,
        torch.backends.cudnn.enabled,
    )


class SingleVoxelInstanceNorm2d(nn.InstanceNorm2d):
    """`InstanceNorm2d` that also takes a single pixel (b, c, 1, 1) in training mode."""

    forward = _normalise


class SingleVoxelInstanceNorm3d(nn.InstanceNorm3d):
    """`InstanceNorm3d` that also takes a single voxel (b, c, 1, 1, 1) in training mode."""

    forward = _normalise


def _convolve(self: nn.Conv2d | nn.Conv3d, input: torch.Tensor) -> torch.Tensor:
    """Convolve, in float32 under the CPU's autocast if an axis has only one or two voxels.

    There oneDNN's weight gradient in bfloat16 reads memory that it never wrote (PyTorch 2.13: a kernel of 3 over 2
    voxels, a stride of 2 over 1): now and then the gradient is NaN or wrong without bounds.
    """
    # The device first: compiled, a look at the size is a condition of the graph, which sizes beyond it need again.
    if input.device.type == "cpu" and torch.is_autocast_enabled("cpu") and _is_narrow(self.kernel_size, input):
        with torch.autocast("cpu", enabled=False):
            output: torch.Tensor = self._conv_forward(input.float(), self.weight, self.bias)
    else:
        output = self._conv_forward(input, self.weight, self.bias)
    return output


def _is_narrow(kernel: tuple[int, ...], input: torch.Tensor) -> bool:
    return any(k > 1 and n <= 2 for k, n in zip(kernel, input.shape[2:], strict=True))


class NarrowConv2d(nn.Conv2d):
    """`Conv2d` whose bfloat16 gradients are also right for patches of one or two pixels."""

    forward = _convolve


class NarrowConv3d(nn.Conv3d):
    """`Conv3d` whose bfloat16 gradients are also right for patches of one or two voxels."""

    forward = _convolve


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: SingleVoxelInstanceNorm2d,
    nn.InstanceNorm3d: SingleVoxelInstanceNorm3d,
    nn.Conv2d: NarrowConv2d,
    nn.Conv3d: NarrowConv3d,
}


def allow_small_patches(network: nn.Module) -> nn.Module:
    """Let the layers of this network (not PyTorch's) accept patches of single voxels; parameters and names stay.

    The 2025 curriculum starts at a 1x1x1 bottleneck (2510.23241), which `torch.nn.functional.instance_norm` refuses and
    whose neighbours oneDNN's convolutions get wrong in bfloat16.
    """
    for module in network.modules():
        replacement = _REPLACEMENTS.get(type(module))
        if replacement is not None:
            module.__class__ = replacement
    return network
