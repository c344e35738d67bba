"""Counts of what PyTorch is asked to do, as it would be asked on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "is_nonzero", "_unique2")


class Operators(TorchDispatchMode):
    """Counts calls of operators, views included, and copies between devices.

    `waits` are those for whose result or size the host would wait on CUDA.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.copies = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.calls += 1
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in _WAITS or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.waits.append(name)
        made = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            self.copies += made.device != source.device
        return made
