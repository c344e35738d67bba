"""Facts of nnU-Net's default plans for the Medical Segmentation Decathlon, shipped with ppgs."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ppgs.errors import PlansError, nearest
from ppgs.estimate.network import Network
from ppgs.schedule.model import PlanFacts
from ppgs.shipped import tasks

# The parser in C where PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ShippedTask(BaseModel):
    """A task whose schedules can be planned without data: the plan's facts, the network, the recipe to start with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    schedule: str
    made_for: PlanFacts
    median_image_size: tuple[float, ...]
    network: Network


def read_task(name: str) -> ShippedTask:
    """Read a shipped task by name; raises `PlansError` with the nearest name, or with the fault in the file."""
    known = tasks()
    if name not in known:
        raise PlansError(f"there is no shipped task '{name}'", "TASK", nearest(name, known))
    try:
        raw: Any = yaml.load(known[name].read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506  (safe both)
        return ShippedTask.model_validate(raw)
    except (OSError, yaml.YAMLError, ValidationError) as problem:
        raise PlansError(f"not readable: {problem}", known[name], "reinstall ppgs") from None
