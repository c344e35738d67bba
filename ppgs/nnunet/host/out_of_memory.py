"""Recognition of errors that mean that a GPU's memory ran out."""

from __future__ import annotations

import torch

# Beside PyTorch's own exception: the libraries below it, which say so in their own words.
_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED and its like
    "CUBLAS_STATUS_ALLOC_FAILED",
    # Both are reported when a library's handle or first workspace does not fit.
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the GPU's memory ran out, under whatever name.

    The compiler wraps what is raised while it compiles or tunes a kernel (`InductorError`), as text or as its cause.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    inner = getattr(error, "inner_exception", None) or error.__cause__
    if inner is not None and inner is not error and is_out_of_memory(inner):
        return True
    return any(name in str(error) for name in _OUT_OF_MEMORY)
