"""Transform parameters in one tensor, so that one copy brings those of many batches to a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Parameters of one transform; empty if it changes no sample.
Arrays = list[NDArray[np.int64] | NDArray[np.float32]]


@dataclass
class Packed:
    """Groups of arrays in one `buffer`: all integers, then all floats. `shapes` are those of the groups, in order."""

    buffer: Tensor
    integers: int
    shapes: list[list[tuple[bool, tuple[int, ...]]]]

    @classmethod
    def of(cls, groups: Sequence[Arrays]) -> Packed:
        flat = [array for group in groups for array in group]
        integers = [array.ravel() for array in flat if array.dtype == np.int64]
        floats = [array.ravel() for array in flat if array.dtype == np.float32]
        if len(integers) + len(floats) < len(flat):
            raise TypeError(f"arrays of {sorted({str(array.dtype) for array in flat})} cannot be packed")
        # An even number of floats fills whole integers; PyTorch views no empty tensor as another type.
        floats.append(np.zeros(2 - sum(array.size for array in floats) % 2, np.float32))
        whole = np.concatenate([np.empty(0, np.int64), *integers])
        buffer = np.concatenate([whole, np.concatenate(floats).view(np.int64)])
        shapes = [[(array.dtype == np.int64, array.shape) for array in group] for group in groups]
        return cls(torch.from_numpy(buffer), len(whole), shapes)

    def unpacked(self) -> list[list[Tensor]]:
        """Return the arrays as views of the buffer."""
        integers, floats = self.buffer[: self.integers], self.buffer[self.integers :].view(torch.float32)
        sizes = {
            kind: [int(np.prod(shape)) for group in self.shapes for is_int, shape in group if is_int == kind]
            for kind in (True, False)
        }
        sizes[False].append(len(floats) - sum(sizes[False]))
        parts = {True: iter(torch.split(integers, sizes[True])), False: iter(torch.split(floats, sizes[False]))}

        def shaped(kind: bool, shape: tuple[int, ...]) -> Tensor:
            part: Tensor = next(parts[kind])
            return part if len(shape) == 1 else part.view(shape)

        return [[shaped(kind, shape) for kind, shape in group] for group in self.shapes]
