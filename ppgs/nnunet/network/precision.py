"""Precision of training: nnU-Net's own, or bfloat16 if the device supports it natively."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ppgs.estimate.cards import cpu_name


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device trains faster in bfloat16: GPUs since Ampere, CPUs with AMX, AMD's with AVX512-BF16.

    Elsewhere PyTorch emulates it, slower than float32. With AVX512-BF16 alone, Intel's CPUs are slower in it too, as
    measured (`docs/results/speed.md`), also where a hypervisor hides their AMX.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _cpu_has("amx_tile") or (_cpu_has("avx512_bf16") and "intel" not in cpu_name().lower())
    return False


def _cpu_has(feature: str) -> bool:
    supported = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return supported is not None and bool(supported())


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
