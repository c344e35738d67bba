"""CUDA's autocast policy for devices that have none: which operations run in half precision or float32.

`torch.autocast` disables itself without a GPU and has no policy for `meta`. This mode applies CUDA's (PyTorch's
documented op reference for CUDA autocast) to the operations that networks and losses of nnU-Net use.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_aten = torch.ops.aten
_HALF = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    torch.matmul,
    torch.Tensor.matmul,
    torch.bmm,
    F.linear,
    F.scaled_dot_product_attention,
}
_SOFTMAX = {torch.softmax, torch.Tensor.softmax, F.softmax}
_LOG_SOFTMAX = {torch.log_softmax, torch.Tensor.log_softmax, F.log_softmax}
_FLOAT = {
    F.binary_cross_entropy_with_logits,
    F.layer_norm,
    F.group_norm,
    torch.layer_norm,
    torch.group_norm,
    torch.pow,
    torch.exp,
    torch.log,
}


class CudaAutocast(TorchFunctionMode):
    """Casts as autocast on CUDA would; each weight is cast once per block, as in autocast's cache."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, torch.Tensor] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._weights.clear()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _HALF:
            return func(*(self._low(a) for a in args), **{k: self._low(v) for k, v in kwargs.items()})
        if func in _SOFTMAX:
            return self._normalise(_aten._softmax, func, args, kwargs)
        if func in _LOG_SOFTMAX:
            return self._normalise(_aten._log_softmax, func, args, kwargs)
        if func is F.cross_entropy and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float16:
            return self._cross_entropy(*args, **kwargs)
        if func in _FLOAT:
            return func(*(_float(a) for a in args), **{k: _float(v) for k, v in kwargs.items()})
        return func(*args, **kwargs)

    def _low(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(torch.float16)
        cached = self._weights.get(id(value))
        if cached is None:
            cached = self._weights[id(value)] = value.to(torch.float16)
        return cached

    def _normalise(self, kernel: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute a softmax in float32 from half precision without a float32 copy of the input, as CUDA does."""
        x = args[0]
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float16:
            return func(*args, **kwargs)
        if x.device.type != "meta":
            return func(x.float(), *args[1:], **kwargs)
        dim = args[1] if len(args) > 1 else kwargs["dim"]
        return kernel(x, dim, True)

    def _cross_entropy(self, x: torch.Tensor, target: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.device.type != "meta":
            return F.cross_entropy(x.float(), target, *args, **kwargs)
        known = {k: v for k, v in kwargs.items() if k in ("weight", "ignore_index", "reduction")}
        return F.nll_loss(_aten._log_softmax(x, 1, True), target, **known)


def _float(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
