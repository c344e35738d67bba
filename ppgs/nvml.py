"""GPUs as NVIDIA's management library reports them, named as `CUDA_VISIBLE_DEVICES` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def driver_is_absent() -> bool:
    """Return whether NVML's library is missing, as pynvml finds out on Linux but without importing pynvml."""
    if sys.platform != "linux" or "pynvml" in sys.modules:
        return False
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return True
    return False


def visible(environ: Mapping[str, str]) -> list[str]:
    """Return the GPUs that a process with this environment sees, as `CUDA_VISIBLE_DEVICES` names them."""
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() and gpu.strip() != "-1"]
    if driver_is_absent():
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []


def handle_of(gpu: str) -> Any:
    """Return NVML's handle of a GPU as `CUDA_VISIBLE_DEVICES` names it, by index or UUID; raises `NVMLError`.

    CUDA's first GPU is the fastest one unless `CUDA_DEVICE_ORDER` says otherwise, NVML's the one in the first slot.
    How CUDA compares speeds is not published; here it is cores times clock.
    """
    import pynvml

    if not gpu.isdigit():
        return pynvml.nvmlDeviceGetHandleByUUID(gpu)
    handles, names = [], set()
    for index in range(pynvml.nvmlDeviceGetCount()):
        # CUDA does not count those that this process may not use either.
        with suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            names.add(str(pynvml.nvmlDeviceGetName(handle)))
            handles.append(handle)
    if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER", "") != "PCI_BUS_ID":
        # max takes the first of equals.
        fastest = max(range(len(handles)), key=lambda index: _speed(handles[index]))
        handles.insert(0, handles.pop(fastest))
    if int(gpu) >= len(handles):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    return handles[int(gpu)]


def slice_of(card: Any) -> Any:
    """Return NVML's handle of the first slice of a card in MIG mode; else the card's."""
    import pynvml

    with suppress(pynvml.NVMLError):
        if pynvml.nvmlDeviceGetMigMode(card)[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
            for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
                # The places of slices may be empty, or another job's.
                with suppress(pynvml.NVMLError):
                    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)
    return card


def _speed(handle: Any) -> int:
    import pynvml

    try:
        clock = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
        return int(pynvml.nvmlDeviceGetNumGpuCores(handle)) * int(clock)
    except pynvml.NVMLError:
        return 0
