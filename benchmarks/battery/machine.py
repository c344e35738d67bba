"""The machine that a figure was measured on: card, driver and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

_PACKAGES = (
    "ppgs", "torch", "triton", "numpy", "nnunetv2", "batchgenerators", "batchgeneratorsv2",
    "dynamic_network_architectures", "acvl_utils", "blosc2", "SimpleITK",
)  # fmt: skip


def describe(device: str) -> dict[str, Any]:
    """Everything that belongs beside a figure, as plain data."""
    import torch

    found: dict[str, Any] = {
        "device": device,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        "cuda": torch.version.cuda,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None,  # type: ignore[no-untyped-call]
            "driver": driver(),
        }
    return found


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # a figure without its driver's version is better than none
        return None
