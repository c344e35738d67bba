"""The one message of an iteration: gradients, followed by the loss and flags of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Fields before those that count, for each parameter, the ranks that have a gradient of it.
_LOSS, _SHORT, _BROKEN, _STOP, _USED = range(5)


@dataclass(frozen=True)
class Told:
    """The sums of all ranks' fields.

    `loss` is their sum, not finite if one of them is not. `short` says that a rank ran out of memory, `broken` that
    one has no part in the iteration, `stop` that one wants to stop, `used` which parameters any rank has used.
    """

    loss: float
    short: bool
    broken: bool
    stop: bool
    used: Sequence[bool]


class Message:
    """A flat buffer for the whole run, of which the gradients are views after every exchange.

    A backward pass allocates its gradients, which `pack` copies in a few kernels: adding them up in the buffer
    itself would take one kernel for each parameter, and hide which parameters were used.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        sizes = [p.numel() for p in parameters]
        self.values = torch.zeros(sum(sizes) + _USED + len(sizes), device=parameters[0].device)
        parts: Sequence[Tensor] = torch.split(self.values, [*sizes, _USED + len(sizes)])
        # In the layout of the parameters, which the fused update requires.
        strides = [torch.empty_like(p, device="meta").stride() for p in parameters]
        self._views = [v.as_strided(p.shape, s) for v, p, s in zip(parts, parameters, strides, strict=False)]
        self._tail = parts[-1]

    def pack(self, loss: float | Tensor, *, stop: bool) -> None:
        """Take this rank's gradients and its part of the loss."""
        used = [p.grad is not None for p in self._parameters]
        if any(used):
            pairs = [(v, p.grad) for v, p in zip(self._views, self._parameters, strict=True) if p.grad is not None]
            torch._foreach_copy_([view for view, _ in pairs], [gradient for _, gradient in pairs])
        if not all(used):
            torch._foreach_zero_([view for view, has in zip(self._views, used, strict=True) if not has])
        self._say([0.0, 0.0, 0.0, float(stop), *map(float, used)])
        # It may still be on the device: nothing waits for it.
        self._tail[_LOSS] = loss

    def pack_nothing(self, *, short: bool = False, broken: bool = False) -> None:
        """Say that this rank has run out of memory, or has no part in the iteration; no gradient will be used."""
        self._say([0.0, float(short), float(broken), 0.0, *[0.0] * len(self._parameters)])

    def _say(self, fields: list[float]) -> None:
        self._tail.copy_(torch.tensor(fields), non_blocking=True)

    def read(self) -> Told:
        """Wait for the sums of all ranks."""
        values = self._tail.tolist()
        short, broken, stop = (values[n] > 0 for n in (_SHORT, _BROKEN, _STOP))
        return Told(values[_LOSS], short, broken, stop, [count > 0 for count in values[_USED:]])

    def hand_out(self, used: Sequence[bool]) -> None:
        """Give the parameters their summed gradients; what no rank has used stays without, as in one process."""
        for parameter, view, has in zip(self._parameters, self._views, used, strict=True):
            parameter.grad = view if has else None
