"""Precision of training: nnU-Net's own, or bfloat16 if the device supports it natively."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware: GPUs since Ampere, CPUs with AVX512-BF16 or AMX.

    Elsewhere PyTorch emulates it, slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        supported = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(check is not None and check() for check in supported)
    return False


def autocast(device: torch.device, *, bfloat16: bool) -> AbstractContextManager[Any]:
    """Return the mixed precision of a step: bfloat16, or nnU-Net's (float16 on CUDA, float32 elsewhere)."""
    if bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return torch.autocast("cuda") if device.type == "cuda" else nullcontext()


def inference(device: torch.device, *, bfloat16: bool) -> AbstractContextManager[Any]:
    """Return the precision of nnU-Net's sliding window: on a GPU that of the training, on the CPU float32.

    nnU-Net's own autocast names no dtype, so within this one it uses this one's.
    """
    return autocast(device, bfloat16=True) if bfloat16 and device.type == "cuda" else nullcontext()
