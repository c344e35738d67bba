"""Transport of a batch from a loader's worker to the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

# Up to this size a copy through the pipe is cheaper than shared memory for each tensor of a batch.
_PIPED = 8 << 20


class Travelling(dict[str, Any]):
    """A small batch that passes through the worker's pipe in one piece: its tensors as plain memory."""

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], tuple[dict[str, Any]]]:
        sizes: list[int] = []
        _each(dict(self), torch.Tensor, lambda tensor: sizes.append(tensor.nbytes))
        if sum(sizes) > _PIPED:
            return dict, (dict(self),)
        return _arrived, (_each(dict(self), torch.Tensor, lambda tensor: _Memory(tensor.numpy())),)


@dataclass(frozen=True)
class _Memory:
    """A tensor as plain memory; a separate type, since a batch also contains arrays that are to stay arrays."""

    array: NDArray[Any]


def _arrived(batch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _each(batch, _Memory, lambda memory: torch.from_numpy(memory.array))
    return found


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Apply a function to all parts of this type in a value: in dictionaries, lists and dataclasses too."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(part, kind, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_each(part, kind, change) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: _each(part, kind, change) for name, part in parts.items()}
        return replace(value, **changed) if any(changed[name] is not parts[name] for name in parts) else value
    return value
