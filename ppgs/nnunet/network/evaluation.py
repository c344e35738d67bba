"""A look at what a network in training predicts, which leaves no trace in the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Within the block, the network evaluates without gradients; its mode and the random numbers are restored."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        network.train(was_training)
