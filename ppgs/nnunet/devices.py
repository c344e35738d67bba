"""Which device computes."""

from __future__ import annotations

import torch

from ppgs.errors import DeviceError

CHOICES = ("auto", "cuda", "cpu", "mps")


def choose_device(name: str, processes: int = 1) -> torch.device:
    """The device of that name, or the best there is for `auto`, for so many processes of this machine.

    Raises `DeviceError` when there is none, or where there are fewer GPUs than processes.
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
