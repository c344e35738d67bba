"""From gradients to weights: nnU-Net's clipping and SGD, bit for bit, in few passes over memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ppgs import upstream


def clip(parameters: Sequence[torch.nn.Parameter], *, wait: bool) -> float | None:
    """Clip the gradients' norm to `upstream.LARGEST_NORM` as `clip_grad_norm_`; with `wait`, return the norm.

    With `wait`, gradients whose norm is not finite are left unchanged. Without it, nothing waits for the device and
    None is returned.
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


class Reading:
    """A batch's loss and the norm of its gradients, on their way from the device."""

    def __init__(self, loss: Tensor, norm: Tensor) -> None:
        self._values = torch.stack([loss.double(), norm.double()])
        self._copied: Any = None
        if loss.device.type == "cuda":
            self._values = torch.empty(2, dtype=torch.float64, pin_memory=True).copy_(self._values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def __call__(self) -> tuple[float, float]:
        """Wait for the step that they belong to, not for later ones."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, norm = self._values.tolist()
        return loss, norm


class LateUpdate:
    """Clipping and SGD without host synchronisation: the device decides whether a batch changes the weights.

    Batches whose loss or gradients are not finite change nothing. Unless they are left out (`skip`) neither does any
    batch after the first of them: so the training can stop at that batch although it learns of it one step late.
    """

    def __init__(self, optimizer: torch.optim.SGD, device: torch.device, *, skip: bool) -> None:
        self._optimizer: Any = optimizer
        self._skip = skip
        self._halted = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, parameters: Sequence[torch.nn.Parameter], loss: Tensor) -> Reading:
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        unusable = (loss.isfinite() & norm.isfinite()).logical_not()
        if not self._skip:
            self._halted = unusable = self._halted | unusable
        self._fill_momentum()
        # `clip_grad_norm_` multiplies by the inverse; the fused step reads and writes the gradients once for both.
        self._optimizer.grad_scale = ((norm + 1e-6) / upstream.LARGEST_NORM).clamp(min=1)
        self._optimizer.found_inf = unusable.float()
        try:
            self._optimizer.step()
        finally:
            del self._optimizer.grad_scale, self._optimizer.found_inf
        return Reading(loss, norm)

    def _fill_momentum(self) -> None:
        """Fill momentum buffers, which a first step that changes nothing would leave uninitialised."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                state = self._optimizer.state[parameter]
                if parameter.grad is not None and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def late_update(optimizer: torch.optim.Optimizer, device: torch.device, *, skip: bool) -> LateUpdate | None:
    """Return the update without host synchronisation, or None for devices and optimisers that do not support it."""
    fused = isinstance(optimizer, torch.optim.SGD) and all(group["fused"] for group in optimizer.param_groups)
    if device.type != "cuda" or not fused:
        return None
    assert isinstance(optimizer, torch.optim.SGD)
    return LateUpdate(optimizer, device, skip=skip)
