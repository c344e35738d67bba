"""Memory layout of weights: channels last, in which cuDNN may convolve faster."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def lay_channels_last(network: nn.Module) -> None:
    """Store the kernels of convolutions channels last; their outputs, and with them the gradients, follow."""
    for module in network.modules():
        if isinstance(module, _ConvNd) and (layout := _CHANNELS_LAST.get(module.weight.dim())) is not None:
            module.weight.data = module.weight.data.contiguous(memory_format=layout)


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Store momentum as the weights are: the fused update reads both in the order of memory, whatever their layout."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            is_like = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if is_like and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
