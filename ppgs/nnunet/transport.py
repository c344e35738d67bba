"""How a batch comes from a loader's worker to the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# Up to here a copy through the pipe takes less than a file descriptor of shared memory for each of a batch's tensors.
_PIPED = 8 << 20


class Travelling(dict[str, Any]):
    """A batch that goes through the pipe of a worker whole when it is small: its tensors as plain memory."""

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], tuple[dict[str, Any]]]:
        tensors = [t for value in self.values() for t in (value if isinstance(value, list) else [value])]
        if sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor)) > _PIPED:
            return dict, (dict(self),)
        return _arrived, ({key: _each(value, torch.Tensor, torch.Tensor.numpy) for key, value in self.items()},)


def _arrived(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: _each(value, np.ndarray, torch.from_numpy) for key, value in batch.items()}


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """What is of this kind changed, in lists too."""
    if isinstance(value, list):
        return [_each(part, kind, change) for part in value]
    return change(value) if isinstance(value, kind) else value
