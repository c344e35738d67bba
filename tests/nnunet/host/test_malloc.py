"""Memory that a training frees is reused without asking the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_STEPS = """
import resource, torch
from ppgs.nnunet.host.malloc import keep_released_memory
if {keep}:
    assert keep_released_memory()
def step():
    torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
for _ in range(40):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_large_blocks_are_not_fetched_anew() -> None:
    faults = {
        keep: int(subprocess.check_output([sys.executable, "-c", _STEPS.format(keep=keep)], text=True))
        for keep in (False, True)
    }
    assert faults[False] > 1000 and faults[True] < 100
