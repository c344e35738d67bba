"""Experiment trackers, fed from a run's event log by processes beside the training.

The training only writes its event log and knows no tracker, so one that hangs, dies or has no network costs nothing
but its curves, and `ppgs runs export-logs` sends those later. `beside` runs as long as the training and starts one
`feeder` for each tracker; only feeders import the trackers' packages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from ppgs.errors import BadInput, Problems, nearest

# A tracker's name is also that of its package and of its extra in pyproject.toml.
TRACKERS = ("tensorboard", "wandb", "mlflow")
NNUNET_SWITCH = "nnUNet_wandb_enabled"
_ON, _OFF = ("1", "true"), ("", "0", "false")


def chosen_trackers(given: str | None, environ: Mapping[str, str], option: str = "--log") -> tuple[str, ...]:
    """Return the trackers of `--log A,B`, and wandb if nnU-Net's `nnUNet_wandb_enabled` is set.

    Raises `BadInput` for unknown names and for trackers whose package is not installed.
    """
    names = dict.fromkeys((name.strip() for name in given.split(",")) if given is not None else (), option)
    problems = Problems()
    for name in names:
        if name not in TRACKERS:
            problems.add(f"there is no tracker '{name}'", option, nearest(name, TRACKERS))
    if _is_on(environ):
        names.setdefault("wandb", NNUNET_SWITCH)
    for name, where in names.items():
        if name in TRACKERS and not _is_installed(name):
            problems.add(f"the package {name} is not installed", where, f"pip install {name}")
    problems.raise_as(BadInput, "the trackers cannot be used")
    return tuple(names)


def _is_installed(tracker: str) -> bool:
    return importlib.util.find_spec(tracker) is not None


def _is_on(environ: Mapping[str, str]) -> bool:
    value = environ.get(NNUNET_SWITCH, "").strip().lower()
    if value not in (*_ON, *_OFF):
        raise BadInput(f"{NNUNET_SWITCH} is '{value}'", "the environment", "set it to 1 or 0")
    return value in _ON
