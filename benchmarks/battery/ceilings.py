"""Part 0: the machine's upper limits, with which everything else is compared."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from battery.record import Part, Skip
from battery.timing import timed

_IMPORTED = (
    "nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils", "blosc2",
    "pydantic", "SimpleITK",
)  # fmt: skip


def take(part: Part) -> None:
    for package in _IMPORTED:
        part.item(f"import {package}", 10, lambda package=package: imported(package))
    part.item("copy", 10, lambda: copy(part))
    for kind in ("bfloat16", "float16", "tf32"):
        part.item(f"matmul {kind}", 10, lambda kind=kind: matmul(part, kind))
    part.item("convolution bfloat16", 20, lambda: convolution(part))
    part.item("pinned copy to the device", 10, lambda: upload(part))
    part.item("launch", 10, lambda: launch(part))
    part.item("compile", 90, lambda: compiles(part))


def imported(package: str) -> dict[str, Any]:
    code = f"import {package} as p; print(getattr(p, '__file__', None))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return {"stub": done.stdout.strip().endswith("stubs/SimpleITK.py")}


def copy(part: Part) -> dict[str, Any]:
    """Bytes read plus bytes written per second of a copy on the device."""
    import torch

    count = 1 << (16 if part.dry else 30)
    source = torch.randn(count // 4, device=part.device)
    target = torch.empty_like(source)
    found = timed(lambda: target.copy_(source), part.device, seconds=0.1 if part.dry else 1)
    return found | {"gigabytes_per_s": 2 * source.nbytes / found["ms"] / 1e6}


def matmul(part: Part, kind: str) -> dict[str, Any]:
    import torch

    if part.device == "cuda" and kind == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise Skip("the card has no bfloat16")
    n = 64 if part.dry else 8192
    dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
    a, b = (torch.randn(n, n, device=part.device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    try:
        found = timed(lambda: a @ b, part.device, seconds=0.1 if part.dry else 1)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return found | {"tflops": 2 * n**3 / found["ms"] / 1e9}


def convolution(part: Part) -> dict[str, Any]:
    """nnU-Net's commonest layer at full size, forward and backward, in both memory formats."""
    import torch

    torch.backends.cudnn.benchmark = True
    side, width = (8, 4) if part.dry else (128, 32)
    found: dict[str, Any] = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last_3d)):
        layer = torch.nn.Conv3d(width, width, 3, padding=1, device=part.device).to(memory_format=layout)
        x = torch.randn(2, width, side, side, side, device=part.device).to(memory_format=layout).requires_grad_()

        def step(layer: Any = layer, x: Any = x) -> None:
            with torch.autocast(part.device, torch.bfloat16):
                y = layer(x)
            y.backward(torch.ones_like(y))

        timing = timed(step, part.device, seconds=0.1 if part.dry else 1)
        flops = 3 * 2 * 2 * width * width * 27 * side**3
        found[name] = timing | {"tflops": flops / timing["ms"] / 1e9}
    return found


def upload(part: Part) -> dict[str, Any]:
    import torch

    source = torch.empty(1 << (16 if part.dry else 26), dtype=torch.uint8)
    if part.device == "cuda":
        source = source.pin_memory()
    found = timed(lambda: source.to(part.device, non_blocking=True, copy=True), part.device, seconds=0.1)
    return found | {"gigabytes_per_s": source.nbytes / found["ms"] / 1e6}


def launch(part: Part) -> dict[str, Any]:
    """Microseconds of an operator call that does nearly nothing."""
    import torch

    x = torch.zeros(16, device=part.device)

    def many() -> None:
        for _ in range(1000):
            x.add_(1.0)

    return {"us_per_call": timed(many, part.device, seconds=0.1)["ms"]}


def compiles(part: Part) -> dict[str, Any]:
    """Check that Inductor finds what it needs here (Triton, a C compiler), and time compiling a small layer."""
    import torch

    if part.dry:
        raise Skip("the CPU's compiler is not what is asked for")
    run = torch.compile(torch.nn.Sequential(torch.nn.Conv3d(4, 4, 3), torch.nn.LeakyReLU()).to(part.device))
    return timed(lambda: run(torch.ones(1, 4, 8, 8, 8, device=part.device)).sum().backward(), part.device, seconds=0.1)
