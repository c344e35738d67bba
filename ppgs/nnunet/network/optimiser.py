"""How gradients become weights: nnU-Net's clipping and SGD, in as few passes over memory as change no bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ppgs import upstream


def clip(parameters: Sequence[torch.nn.Parameter], *, wait: bool) -> float | None:
    """Clip the gradients' norm to `upstream.LARGEST_NORM` as `clip_grad_norm_` does; with `wait`, returns what it was.

    Then gradients whose norm is not finite stay as they are. Without, nothing waits for the device, and it is None.
    """
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not wait:
        clip_grads_with_norm_(parameters, upstream.LARGEST_NORM, norm)
        return None
    known = float(norm)
    # Smaller gradients would be multiplied by exactly one, all of them read and written.
    if upstream.LARGEST_NORM - 1e-3 < known < float("inf"):
        clip_grads_with_norm_(parameters, upstream.LARGEST_NORM, norm)
    return known


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let SGD update all parameters in one pass over memory."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            if all(p.device.type in ("cpu", "cuda") for p in group["params"]):
                group["fused"], group["foreach"] = True, False
