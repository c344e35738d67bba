"""Numbers of processes: what `--gpus` may say for a training, a continued one and a prediction."""

from __future__ import annotations

import os

from ppgs.errors import BadInput
from ppgs.nnunet.host.environment import launched
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest


def check_gpus(gpus: int | None, device: str) -> None:
    """Raise `BadInput` if this many processes cannot be started on this machine."""
    if gpus is None or gpus == 1:
        return
    if launched(os.environ) > 1:
        raise BadInput("torchrun says already how many processes train", "--gpus", "leave the option out")
    if device == "mps":
        raise BadInput("several processes train on NVIDIA GPUs or on the CPU alone", "--gpus", "leave the option out")


def set_gpus(run: RunFolder, gpus: int | None, restarts: int | None) -> None:
    """Set the number of processes of a run to be continued, if one is given."""
    manifest = read_manifest(run)
    check_gpus(gpus, manifest.request.device)
    asked = {name: n for name, n in (("gpus", gpus), ("restarts", restarts)) if n is not None}
    if any(getattr(manifest.request, name) != n for name, n in asked.items()):
        manifest.request = manifest.request.model_copy(update=asked)
        write_manifest(run, manifest)
