"""Recorder of a step's allocations, releases and computations, operation by operation."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_CONVOLUTIONS = {_aten.convolution, _aten.convolution_backward}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Events, as flat integers, in the order in which they happened.

    `events`: pairs (kind, value): `+` allocates a storage of `value` bytes (storages are numbered from 0 in this
    order), `-` releases storage number `value`, `w` is a convolution whose operands and results hold `value` bytes.
    `flops`: floating-point operations of every counted operation (PyTorch's own formulas, a multiply-add is two).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[tuple[str, int]] = []
        self.flops: list[int] = []
        self._numbers = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def hold(self, tensors: Any) -> None:
        """Count tensors that exist before the step, such as parameters."""
        for tensor in tensors:
            self._see(tensor)

    def _see(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        if key in self._known:
            return size
        number = self._numbers
        self._numbers += 1
        self.events.append(("+", size))

        def released(_: Any) -> None:
            self._known.pop(key, None)
            self.events.append(("-", number))

        self._known[key] = weakref.ref(storage, released)
        return size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _aten._local_scalar_dense.default and args[0].is_meta:
            # "Is there any labelled voxel?" (DC_and_CE_loss with an ignore label): there is.
            return 1
        inputs = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        result = func(*args, **kwargs)
        outputs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        sizes = [self._see(t) for t in outputs]
        packet = func.overloadpacket
        if packet in flop_registry:
            self.flops.append(int(flop_registry[packet](*args, **kwargs, out_val=result)))
        if packet in _CONVOLUTIONS:
            self.events.append(("w", sum(sizes) + sum(_bytes(t) for t in inputs)))
        return result


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def collector_off() -> Iterator[None]:
    """Disable the garbage collector, which would release tensors at arbitrary points of the record."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
