"""Numbers of processes: what `--gpus` may say for a training, a continued one and a prediction."""

from __future__ import annotations

import os

from ppgs.errors import BadInput
from ppgs.nnunet.host.environment import launched


def check_gpus(gpus: int | None, device: str) -> None:
    """Raise `BadInput` if this many processes cannot be started on this machine."""
    if gpus is None or gpus == 1:
        return
    if launched(os.environ) > 1:
        raise BadInput("torchrun says already how many processes train", "--gpus", "leave the option out")
    if device == "mps":
        raise BadInput("several processes train on NVIDIA GPUs or on the CPU alone", "--gpus", "leave the option out")
