"""Memory limits: the GPU present, a card's name, or a size."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from ppgs.errors import BadInput, nearest
from ppgs.nvml import driver_is_absent, handle_of, slice_of, visible

_MIB = 1 << 20
# What `nvidia-smi` reports as total, in MiB; a card's name lacks spaces and is in lower case.
CARDS: dict[str, int] = {
    "gtx1080": 8192,
    "gtx1080ti": 11264,
    "rtx2060": 6144,
    "rtx2070": 8192,
    "rtx2080": 8192,
    "rtx2080ti": 11264,
    "titanrtx": 24576,
    "rtx3060": 12288,
    "rtx3070": 8192,
    "rtx3080": 10240,
    "rtx3090": 24576,
    "rtx4060": 8188,
    "rtx4070": 12282,
    "rtx4080": 16376,
    "rtx4090": 24564,
    "rtx5070": 12227,
    "rtx5080": 16303,
    "rtx5090": 32607,
    "rtxa4000": 16376,
    "rtxa5000": 24564,
    "rtxa6000": 49140,
    "rtx6000ada": 49140,
    "t4": 15360,
    "p100": 16384,
    "v100": 16384,
    "v100-16gb": 16384,
    "v100-32gb": 32768,
    "a10": 23028,
    "a10g": 23028,
    "a30": 24576,
    "a40": 46068,
    "a100": 40960,
    "a100-40gb": 40960,
    "a100-80gb": 81920,
    "l4": 23034,
    "l40": 46068,
    "l40s": 46068,
    "h100": 81559,
    "h100-80gb": 81559,
    "h200": 143771,
    "b200": 183359,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
# Words to drop from a card's name.
_MAKERS = "nvidia|geforce|tesla|quadro|graphics|generation"
# Suffixes that make a name a different card.
_VARIANTS = {"ti", "super", "ada", "laptop", "max"}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name and its total memory in bytes (None: no limit is known)."""

    name: str
    memory: int | None


def plain(name: str) -> str:
    """Normalise a card's name as in `CARDS`: `NVIDIA GeForce RTX 3090` and `RTX-3090` are `rtx3090`."""
    words = re.sub(rf"{_MAKERS}|[\s_]", "", name.lower())
    return words if re.fullmatch(r"\w+-\d+gb", words) else words.replace("-", "")


def same_card(one: str, other: str) -> bool:
    """Return whether two names are one model: `a100-80gb` and `NVIDIA A100-SXM4-80GB`, not `l4` and `NVIDIA L40`.

    A MIG slice (`NVIDIA A100-SXM4-40GB MIG 1g.5gb`) is a model of its own.
    """
    (mine, my_memory), (theirs, their_memory) = _family(one), _family(other)
    return mine == theirs and (my_memory is None or their_memory is None or my_memory == their_memory)


def _family(name: str) -> tuple[str, str | None]:
    """Return a card's name (with a MIG slice's profile) without memory and form factor, and the memory if named."""
    whole, *profile = re.split(r"\bmig\b", name.lower())
    words = re.findall(r"[a-z0-9]+", re.sub(_MAKERS, " ", whole))
    memory = next((word for word in words if re.fullmatch(r"\d+gb", word)), None)
    families = {card.split("-")[0] for card in CARDS}
    spans = ((i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    found = ["".join(words[i:j]) for i, j in spans if not set(words[j : j + 1]) & _VARIANTS]
    known = [card for card in found if card in families]
    return " ".join([max(known, key=len, default="".join(words)), *profile]), memory


def cpu_name() -> str:
    """Return the model of this machine's CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def host_name(kind: str, threads: int) -> str:
    """Return the name under which calibrations of this machine's `cpu` with this many threads, or `mps`, are stored."""
    return f"{kind} {cpu_name()} x{threads}" if kind == "cpu" else f"{kind} {cpu_name()}"


def present() -> Gpu | None:
    """Return the first GPU that this process sees (`CUDA_VISIBLE_DEVICES`) as NVML reports it, or None.

    Of a card in MIG mode that is its first slice, as for CUDA. NVML may not report the memory; no limit is known then.
    """
    first = next(iter(visible(os.environ)), None)
    if first is None or driver_is_absent():
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = slice_of(handle_of(first))
            name = str(pynvml.nvmlDeviceGetName(handle))
            try:
                return Gpu(name, int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
            except pynvml.NVMLError:
                return Gpu(name, None)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def parse_memory(text: str) -> Gpu | None:
    """Parse `auto` (the GPU present, None if there is none), a size such as `24GiB` or `11GB`, or a card's name.

    `GiB` is 2**30 bytes, `GB` 10**9, a bare `G` the former. Raises `BadInput` with the nearest name.
    """
    given = text.strip().lower()
    if given == "auto":
        return present()
    match = _SIZE.fullmatch(given)
    if match and (match[2] or match[1].isdigit()):
        binary = match[3] or not given.endswith("b")
        size = int(float(match[1]) * (1024 if binary else 1000) ** _POWERS[match[2]])
        # A small number without a unit is a forgotten unit, not bytes.
        if size < 1 or (not match[2] and size < 64 * _MIB):
            raise BadInput(f"'{text}' is no memory of a GPU", "--gpu-memory", "give a size such as 24GiB")
        return Gpu(text.strip(), size)
    name = plain(given)
    if name not in CARDS:
        raise BadInput(
            f"'{text}' is neither a size nor a known card", "--gpu-memory", f"use auto, 24GiB; {nearest(name, CARDS)}"
        )
    return Gpu(name, CARDS[name] * _MIB)
