"""Device, number of threads and number of loader workers of a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ppgs.errors import DeviceError
from ppgs.nnunet.host.environment import given_workers
from ppgs.processes.limits import cpu_count

CHOICES = ("auto", "cuda", "cpu", "mps")


def choose_device(name: str, processes: int = 1) -> torch.device:
    """Return the device of that name, or the best one for `auto`, for this many processes of this machine.

    Raises `DeviceError` when there is none, or fewer GPUs than processes.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if processes > 1 and name != "cpu":
        there_are = torch.cuda.device_count() if has["cuda"] else 0
        if name == "mps" or there_are < processes:
            raise DeviceError(
                f"{processes} processes need as many NVIDIA GPUs, here are {there_are}",
                "--gpus",
                "give fewer; with --device cpu the processes compute there",
            )
        return torch.device("cuda")
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if has[device]))
    if name not in has:
        raise DeviceError(f"there is no device '{name}'", "--device", f"use one of {', '.join(CHOICES)}")
    if not has[name]:
        there = ", ".join(device for device, present in has.items() if present)
        raise DeviceError(f"this machine has no {name} device that PyTorch can use", "--device", f"here: {there}")
    return torch.device(name)


def seconds_of(
    work: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds that some work takes until the device has done it."""
    _wait_for(device)
    begun = clock()
    work()
    _wait_for(device)
    return clock() - begun


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def workers_of(asked: int | None, device: torch.device, processes: int = 1) -> int:
    """Return the number of loader workers per process: what was asked for, else `default_workers`."""
    return default_workers(device, processes) if asked is None else asked


def default_workers(device: torch.device, processes: int = 1) -> int:
    """Return the number of loader workers per process: nnU-Net's own setting if given, else what suits the device.

    On a GPU they feed it, on the CPU they compete with it: on two cores a loader process holds up both threads of the
    training for longer than it takes to make the batches between the steps.
    """
    if (given := given_workers()) is not None:
        return given
    cpus = cpu_count() // processes
    if device.type == "cuda":
        return max(1, min(12, cpus - 1))
    return int(cpus > 2)


def set_threads(device: torch.device, processes: int = 1) -> None:
    """Set threads as nnU-Net does (`run_training_entry`): all CPUs shared by the processes, one beside a GPU."""
    torch.set_num_threads(max(1, cpu_count() // processes) if device.type == "cpu" else 1)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def keep_to_one_thread() -> None:
    """Compute with one PyTorch thread until the process ends, as a worker must that is forked.

    It lacks the threads of its parent, and a parallel region waits for them for ever. nnU-Net's resampling by PyTorch
    sets a number of threads of its own, which is ignored.
    """
    torch.set_num_threads(1)
    torch.set_num_threads = lambda _: None  # type: ignore[assignment]


def can_compile(device: torch.device) -> bool:
    """Return False for GPUs before Volta, for which Triton has no compiler."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (7, 0)


def compiled(network: torch.nn.Module, **options: Any) -> Any:
    """Compile the network with one graph for every patch and batch size.

    By default PyTorch compiles a graph for any size as soon as it meets a second one: a stage's kernels, and with them
    its speed and rounding, would depend on which stages this process has trained before.
    """
    # Dynamo gives up compiling after eight sizes; a curriculum has more.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(network, dynamic=False, **options)
