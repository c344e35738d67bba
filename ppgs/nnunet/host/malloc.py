"""glibc's allocator, set to keep memory that a training frees and reallocates at every step."""

from __future__ import annotations

import ctypes
import platform

# mallopt(3): the names' values in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_released_memory() -> bool:
    """Return whether the allocator is glibc's and now keeps released blocks, whatever their size.

    By default it returns every large block to the kernel, which hands it out again page by page and zeroed: a tenth of
    a step at Hippocampus' full patch (`benchmarks/results/speed.md`). PyTorch's CUDA allocator already does what this
    does for tensors on the CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # A threshold of -1 is none.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
