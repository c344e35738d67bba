"""Bit-for-bit repeatable training on a GPU: deterministic kernels, chosen without timing them."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ppgs.errors import BadInput

# The two workspaces with which cuBLAS is deterministic (its manual, "Results reproducibility"); the larger is faster.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
_REFUSAL = "does not have a deterministic implementation"


def use_deterministic_kernels(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have PyTorch choose deterministic kernels only, and raise where there is none (`refusals`).

    Call before the first operation on a GPU: cuBLAS reads its variable once. Raises `BadInput` if that is set to a
    workspace with which cuBLAS is not deterministic.
    """
    if environ.setdefault(_WORKSPACE, _WORKSPACES[0]) not in _WORKSPACES:
        raise BadInput(
            f"{_WORKSPACE} is '{environ[_WORKSPACE]}', with which cuBLAS is not deterministic",
            "the environment",
            f"unset it, or set it to {' or '.join(_WORKSPACES)}",
        )
    torch.use_deterministic_algorithms(True)
    # Memory that is not initialised is always written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def refusals() -> Iterator[None]:
    """Raise `BadInput` for an operation without a deterministic kernel."""
    try:
        yield
    except RuntimeError as error:
        if _REFUSAL not in str(error):
            raise
        operation = str(error).split(_REFUSAL)[0].strip().rsplit(" ", 1)[-1]
        raise BadInput(
            f"{operation} of this trainer's network or loss has no deterministic form on this device",
            "--deterministic",
            "leave the option out, or use another --trainer or --plans",
        ) from None


def replace_pooling(network: nn.Module) -> None:
    """Compute average pooling without overlaps (nnU-Net's residual encoders) by operations that are deterministic.

    CUDA adds up the gradients of `AvgPool3d` in any order, although nothing overlaps.
    """
    for module in network.modules():
        if isinstance(module, nn.AvgPool3d) and _is_plain(module):
            module.forward = _Pooling(_triple(module.kernel_size))  # type: ignore[assignment]


def replace_reduction(loss: nn.Module) -> None:
    """Compute the mean of cross entropy over voxels apart from it: its own, on CUDA, adds up in any order."""
    for module in loss.modules():
        if not isinstance(module, nn.CrossEntropyLoss) or module.weight is not None or module.label_smoothing:
            continue
        if module.reduction == "mean":
            module.reduction = "none"
            module.register_forward_hook(_mean)


def _mean(module: nn.Module, inputs: tuple[Any, ...], losses: Tensor) -> Tensor:
    """Return the mean over voxels that are not ignored, as `reduction="mean"`."""
    counted: Tensor = inputs[1] != module.ignore_index
    return losses.sum() / counted.sum()


class _Pooling:
    """Means of blocks of `size` voxels, which must divide the feature maps."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        self._size = size

    def __call__(self, x: Tensor) -> Tensor:
        blocks = [part for side, size in zip(x.shape[-3:], self._size, strict=True) for part in (side // size, size)]
        return x.reshape(*x.shape[:-3], *blocks).mean((-5, -3, -1))


def _is_plain(pool: nn.AvgPool3d) -> bool:
    size = _triple(pool.kernel_size)
    return _triple(pool.stride) == size and not any(_triple(pool.padding)) and pool.divisor_override is None


def _triple(value: Any) -> tuple[int, int, int]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)
