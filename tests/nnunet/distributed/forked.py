"""Several ranks that import nnU-Net once: `python forked.py MODULE PROCESSES PARENT ARGUMENTS...`.

The module is imported, then forked for every rank; each calls its `main` with the environment that torchrun would give
it. The exit code is 0 if all ranks succeed; when one fails, the others are killed.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

from ppgs.processes.worker import die_with_parent


def begin(module: Any, rank: int, launched: dict[str, str]) -> int:
    """Fork a rank; return its process number."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        die_with_parent(parent)
        os.environ.update(launched, RANK=str(rank), LOCAL_RANK=str(rank))
        module.main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    name, count, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    die_with_parent(parent)
    del sys.argv[1:4]
    module = importlib.import_module(name)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launched = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test"}
    launched |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    running = {begin(module, rank, launched) for rank in range(count)}
    failed = False
    while running:
        child, status = os.wait()
        running.discard(child)
        if status and not failed:
            failed = True
            for other in running:
                os.kill(other, signal.SIGKILL)
    sys.exit(failed)


if __name__ == "__main__":
    main()
