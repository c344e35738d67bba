"""Readings of this machine, taken in a thread; an unavailable reading is None and shown as N/A."""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psutil


@dataclass(frozen=True)
class Gpu:
    name: str
    utilisation: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    temperature: float | None = None
    power: float | None = None


@dataclass(frozen=True)
class Reading:
    """CPU in percent, memory in bytes; `process_*` are for the training with its workers."""

    cpu: float | None = None
    cpus: int | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    process_cpu: float | None = None
    process_memory: float | None = None
    gpus: tuple[Gpu, ...] = ()


class Sampler(Protocol):
    def read(self, pid: int | None) -> Reading: ...


class Machine:
    """Reader of psutil, and of NVML if it and a GPU are present."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._processes: dict[int, psutil.Process] = {}
        with suppress(Exception):  # NVML has its own error types, one for each way of not being there
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            self._nvml = nvml

    def read(self, pid: int | None) -> Reading:
        cpu = memory = None
        with suppress(psutil.Error, OSError):
            cpu = psutil.cpu_percent()
            memory = psutil.virtual_memory()
        process_cpu, process_memory = self._family(pid)
        return Reading(
            cpu=cpu,
            cpus=psutil.cpu_count(),
            memory_used=memory.total - memory.available if memory else None,
            memory_total=memory.total if memory else None,
            process_cpu=process_cpu,
            process_memory=process_memory,
            gpus=self._gpus(),
        )

    def _family(self, pid: int | None) -> tuple[float | None, float | None]:
        if pid is None:
            return None, None
        try:
            parent = psutil.Process(pid)
            found = {p.pid: p for p in (parent, *parent.children(recursive=True))}
        except psutil.Error:
            return None, None
        # The same objects every time: a process's CPU share is measured between two calls.
        self._processes = {number: self._processes.get(number, p) for number, p in found.items()}
        cpu = memory = 0.0
        for process in self._processes.values():
            with suppress(psutil.Error):
                cpu += process.cpu_percent()
                memory += process.memory_info().rss
        return cpu, memory

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._nvml is None:
            return ()
        nvml = self._nvml

        def ask(call: Any) -> Any:
            with suppress(nvml.NVMLError):
                return call()
            return None

        found = []
        for index in range(ask(nvml.nvmlDeviceGetCount) or 0):
            handle = ask(lambda i=index: nvml.nvmlDeviceGetHandleByIndex(i))
            if handle is None:
                continue
            name = ask(lambda h=handle: nvml.nvmlDeviceGetName(h)) or f"GPU {index}"
            rates = ask(lambda h=handle: nvml.nvmlDeviceGetUtilizationRates(h))
            memory = ask(lambda h=handle: nvml.nvmlDeviceGetMemoryInfo(h))
            power = ask(lambda h=handle: nvml.nvmlDeviceGetPowerUsage(h))
            found.append(
                Gpu(
                    name=name.decode() if isinstance(name, bytes) else str(name),
                    utilisation=rates.gpu if rates else None,
                    memory_used=memory.used if memory else None,
                    memory_total=memory.total if memory else None,
                    temperature=ask(lambda h=handle: nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU)),
                    power=power / 1000 if power is not None else None,
                )
            )
        return tuple(found)
