"""Processes that take part in a training that another one leads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from ppgs.nnunet.distributed.ranks import ProcessGroup

_WAITS = """
import os, threading, torch
from ppgs.nnunet.distributed.ranks import ProcessGroup
from ppgs.nnunet.process.follower import _end_with_the_first
ranks = ProcessGroup(os.environ)
threading.Thread(target=_end_with_the_first, args=(ranks,), daemon=True).start()
print("connects", flush=True)
ranks.connect(torch.device("cpu"))
"""


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The launcher's environment of the first of two processes; the store is the launcher's, as in a real training."""
    store = dist.TCPStore("localhost", 0, 2, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    here = {
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
        "TORCHELASTIC_RUN_ID": "x",
    }
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    yield here
    del store


def test_one_that_waits_for_the_others_ends_with_the_first(environ: dict[str, str]) -> None:
    """As where the first one finds no room for its checkpoints: it never connects, and its end is no failure."""
    first = ProcessGroup(environ)
    second = {**os.environ, **environ, "RANK": "1", "LOCAL_RANK": "1"}
    waiting = subprocess.Popen([sys.executable, "-c", _WAITS], env=second, stdout=subprocess.PIPE, text=True)
    try:
        assert waiting.stdout is not None and waiting.stdout.readline() == "connects\n"
        # Deep in PyTorch, where neither signals nor other users of its connection are served.
        time.sleep(2)
        first.end()
        assert waiting.wait(120) == 0
    finally:
        waiting.kill()
        waiting.communicate()
