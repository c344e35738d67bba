"""`train` and `resume` under torchrun: every process on every machine runs the same command.

Rank 0 creates and follows the run as usual; the others only contribute their GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from ppgs.nnunet.host.environment import as_given, launched
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots


def is_under(environ: Mapping[str, str]) -> bool:
    """Return whether torchrun started this process together with others."""
    return launched(environ) > 1


def is_follower(environ: Mapping[str, str]) -> bool:
    """Return whether this is not rank 0."""
    return is_under(environ) and environ["RANK"] != "0"


def is_another_try(environ: Mapping[str, str]) -> bool:
    """Return whether torchrun has restarted its processes after one died (`--max-restarts`)."""
    return is_under(environ) and environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def start_follower(run: RunFolder, roots: Roots) -> subprocess.Popen[bytes]:
    """Start the process that takes part in the training of a run, whose folder may not exist yet."""
    return subprocess.Popen(
        [sys.executable, "-m", "ppgs.nnunet.process", str(run.path), "--with-parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        env={**as_given(), **roots.environment, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
