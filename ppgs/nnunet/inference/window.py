"""nnU-Net's sliding window with its logits in the first place that has room: device, memory or a file.

nnU-Net allocates the logits of all classes at the network's resolution, and a copy of them when it looks for
infinities. Here its own loop runs with another allocation: memory that an export worker can map, and whole-array
operations class by class.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch.overrides import TorchFunctionMode

Place = Literal["device", "memory", "file"]
# Mapped pages of a file are let go after this many bytes of tiles, so that they do not count as this process's memory.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Stored:
    """Logits (classes, z, y, x) for another process of this machine, read one class at a time.

    Only `len` and slices of the first axis are supported.
    """

    path: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        # Mapped for this part alone: what was read of a file does not stay in memory.
        flat = np.memmap(self.path, np.float16, "r", self.offset)
        return np.array(np.lib.stride_tricks.as_strided(flat, self.shape, self.strides, writeable=False)[part])


class Storage:
    """Memory or a file for one image's logits; `folder` is where the file is made, None for memory.

    The file has no name on disk: it is gone with its last user, whatever ends them.
    """

    def __init__(self, folder: Path | None) -> None:
        self._in_file = folder is not None or not hasattr(os, "memfd_create")
        self._folder, self._file = folder, -1
        self._map: mmap.mmap | None = None
        self._named: str | None = None

    def zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Allocate the logits; raises `OSError` if the disk has no room for them."""
        size = 2 * int(np.prod(shape))
        if not self._in_file:
            self._file = os.memfd_create("ppgs-logits")
            os.ftruncate(self._file, size)
        else:
            self._file, name = tempfile.mkstemp(dir=self._folder, prefix="logits-")
            if Path(f"/proc/self/fd/{self._file}").exists():
                Path(name).unlink()
            else:
                self._named = name
            if hasattr(os, "posix_fallocate"):
                # All of it now: a full disk would end the process with SIGBUS later.
                os.posix_fallocate(self._file, 0, size)
            else:
                os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        return torch.frombuffer(self._map, dtype=torch.half).view(shape)

    def stored(self, view: torch.Tensor) -> Stored:
        """Return the location of a part of the allocation."""
        path = self._named or f"/proc/{os.getpid()}/fd/{self._file}"
        strides = tuple(2 * step for step in view.stride())
        return Stored(path, tuple(view.shape), strides, 2 * int(view.storage_offset()))

    def let_go(self) -> None:
        """Unmap the pages of a file until they are needed again; its content stays."""
        if self._in_file and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Free the memory when no tensor uses it any more."""
        if self._file >= 0:
            os.close(self._file)
            if self._named is not None:
                Path(self._named).unlink(missing_ok=True)
        self._file, self._map = -1, None


class _Placed(TorchFunctionMode):
    """Within the block, nnU-Net's loop allocates its logits in a storage and iterates over them class by class."""

    def __init__(self, shape: tuple[int, ...], storage: Storage | None) -> None:
        super().__init__()
        self._shape, self._storage = shape, storage
        self._logits: torch.Tensor | None = None

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function is torch.zeros and args and args[0] == self._shape and named.get("dtype") == torch.half:
            self._logits = function(*args, **named) if self._storage is None else self._storage.zeros(self._shape)
            return self._logits
        if function is torch.div and self._is_logits(args[0]) and self._is_logits(named.get("out")):
            for part in self._classes():
                torch.div(part, args[1], out=part)
            return self._logits
        if function is torch.isinf and self._is_logits(args[0]):
            return torch.stack([torch.isinf(part).any() for part in self._classes()])
        return function(*args, **named)

    def _is_logits(self, tensor: object) -> bool:
        return self._logits is not None and tensor is self._logits

    def _classes(self) -> Iterator[torch.Tensor]:
        assert self._logits is not None
        for part in self._logits:
            yield part
            if self._storage is not None:
                self._storage.let_go()


class Predictor(nnUNetPredictor):
    """nnU-Net's predictor, whose logits go to a chosen storage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._place: Place | None = None
        self._folder: Path | None = None
        # Of the first fold, to whose logits nnU-Net adds those of the others, and of the fold that is predicted now.
        self._sum: Storage | None = None
        self._storage: Storage | None = None
        self._folds = self._touched = 0
        # Windows of one fold, those that are done, and who is called with them.
        self._windows = self._done = 0
        self._counted: Callable[[int, int], object] = lambda *_: None

    def logits(
        self,
        data: torch.Tensor,
        place: Place,
        folder: Path,
        counted: Callable[[int, int], object] = lambda *_: None,
    ) -> tuple[Stored, Storage]:
        """Predict an image's logits, averaged over the folds, into a storage that the caller closes.

        A file is made in `folder`. Without weights of folds the network predicts with those that it has. After every
        window of every fold `counted(done, total)` is called.
        """
        self._place, self._folder, self._folds, self._touched = place, folder, 0, 0
        self._counted = counted
        self.perform_everything_on_device = place == "device"
        try:
            if self.list_of_parameters is None:
                predicted = self.predict_sliding_window_return_logits(data).cpu()
            else:
                predicted = self.predict_logits_from_preprocessed_data(data)
            if self._sum is None:
                self._sum = Storage(None)
                predicted = self._sum.zeros(tuple(predicted.shape)).copy_(predicted)
            storage, self._sum = self._sum, None
            storage.let_go()
            return storage.stored(predicted), storage
        finally:
            self._close(self._storage, self._sum)
            self._place = self._storage = self._sum = None

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        # The fold before has been added to the sum.
        self._close(self._storage)
        self._storage = None
        predicted: torch.Tensor = super().predict_sliding_window_return_logits(input_image)
        if self._folds == 0:
            self._sum, self._storage = self._storage, None
        self._folds += 1
        return predicted

    @staticmethod
    def _close(*storages: Storage | None) -> None:
        for storage in storages:
            if storage is not None:
                storage.close()

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Any, do_on_device: bool = True
    ) -> torch.Tensor:
        self._windows, self._done = len(slicers), 0
        shape = (self.label_manager.num_segmentation_heads, *data.shape[1:])
        if self._place is not None and not do_on_device:
            self._storage = Storage(self._folder if self._place == "file" else None)
        with _Placed(shape, self._storage):
            predicted: torch.Tensor = super()._internal_predict_sliding_window_return_logits(
                data, slicers, do_on_device
            )
        return predicted

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        self._touched += 2 * self.label_manager.num_segmentation_heads * x[0, 0].numel()
        if self._storage is not None and self._touched > _KEPT_BYTES:
            self._touched = 0
            self._storage.let_go()
        # The network's own operations need not pass by the allocation.
        with torch._C.DisableTorchFunction():
            predicted: torch.Tensor = super()._internal_maybe_mirror_and_predict(x)
        self._done += 1
        folds = len(self.list_of_parameters or [None])
        self._counted(self._folds * self._windows + self._done, folds * self._windows)
        return predicted
