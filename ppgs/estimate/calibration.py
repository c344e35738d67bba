"""Measurements of a device, kept per device and PyTorch version for later estimates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ppgs.errors import BadInput
from ppgs.estimate import store
from ppgs.estimate.allocator import replay
from ppgs.estimate.cards import host_name, same_card
from ppgs.estimate.memory import Surroundings
from ppgs.estimate.speed import Point, Speed, fit_speed
from ppgs.estimate.tracer import Tracer, ask
from ppgs.processes.limits import cpu_count

_BUDGET = 40.0
# Calibrated estimates still vary from run to run.
_CALIBRATED_MARGIN = 1.05
Points = Sequence[tuple[tuple[int, ...], int]]


class Calibration(BaseModel):
    """One device under one PyTorch version.

    `validation` is the seconds of a validation step relative to what the speed says of its FLOPs. `watts` is the mean
    power of the device while it trained. `context` (bytes) and `workspace` as in `Surroundings`, None on a CPU.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    device: str
    torch: str
    speed: Speed
    validation: float = 1.0
    watts: float | None = None
    context: int | None = None
    workspace: float | None = None

    @property
    def surroundings(self) -> Surroundings:
        if self.context is None or self.workspace is None:
            return Surroundings()
        return Surroundings(self.context, self.workspace, _CALIBRATED_MARGIN)


def _folder() -> Path:
    return store.folder() / "calibration"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def torch_version() -> str:
    """Return the installed PyTorch version without importing it; its local part (`+cpu`) is left out."""
    try:
        return metadata.version("torch").split("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


def _path(device: str) -> Path:
    return _folder() / f"{_slug(device)}__torch-{torch_version()}.json"


def stored() -> list[Calibration]:
    """Return all calibrations for the installed PyTorch version."""
    found = []
    for path in sorted(_folder().glob(f"*__torch-{torch_version()}.json")):
        try:
            found.append(Calibration.model_validate(store.read(path)))
        except ValidationError:
            continue
    return found


def find(device: str) -> Calibration | None:
    """Return the calibration of a card (`rtx3090`, `NVIDIA GeForce RTX 3090`) or of this machine's `cpu` or `mps`."""
    if device in ("cpu", "mps"):
        return next((c for c in stored() if c.device == host_name(device, cpu_count())), None)
    cards = (c for c in stored() if not c.device.startswith(("cpu ", "mps ")))
    return next((c for c in cards if same_card(device, c.device)), None)


def calibrate(
    tracer: Tracer, points: Points, device: str, *, budget: float = _BUDGET, clock: Literal["wall", "cpu"] = "wall"
) -> Calibration:
    """Take real steps on `device` (`cpu`, `cuda`, `mps`) at these points (patch, batch), and fit.

    Takes about `budget` seconds and half a minute at most to start. With `clock` "cpu" the seconds are the CPU's, of
    one thread. Raises `DoesNotFit` where the device has no room for the first point.
    """
    ordered = sorted(dict.fromkeys(points), key=lambda p: _flops(tracer, *p))
    answer = ask(
        {
            "want": "time",
            "facts": tracer.network.model_dump(mode="json"),
            "mixed": device == "cuda",
            "device": device,
            "budget": budget,
            "points": ordered,
            "clock": clock,
        }
    )
    return evaluate(tracer, answer)


def keep(calibration: Calibration) -> None:
    """Store a calibration for later estimates; raises `BadInput` where it cannot be written."""
    if not store.write(_path(calibration.device), calibration.model_dump(mode="json")):
        raise BadInput("the calibration cannot be written", _folder(), "set PPGS_CACHE to a folder of yours")


def evaluate(tracer: Tracer, answer: dict[str, Any]) -> Calibration:
    """Return the calibration of measured steps (the nnU-Net process's answer)."""
    digest = tracer.network.digest
    points = [
        Point(flops=_flops(tracer, tuple(p["patch"]), p["batch"]), **p) for p in answer["points"] if p["seconds"] > 0
    ]
    speed = fit_speed(points, digest)
    seen = answer["validation"]
    law = tracer.law("validate", tuple(seen["patch"]), seen["batch"])
    predicted = speed.seconds(law.flops_at(seen["patch"], seen["batch"]), digest)
    context = answer.get("context")
    return Calibration(
        device=answer["device"],
        torch=answer["torch"],
        speed=speed,
        validation=seen["seconds"] / predicted,
        watts=answer.get("watts"),
        context=context,
        workspace=_workspace(tracer, points) if context is not None else None,
    )


def _flops(tracer: Tracer, patch: tuple[int, ...], batch: int) -> int:
    return tracer.law("train", patch, batch).flops_at(patch, batch)


def _workspace(tracer: Tracer, points: Sequence[Point]) -> float:
    """Fit the workspace factor that makes the allocator's model match the reserved bytes best."""
    measured = [p for p in points if p.reserved]
    if not measured:
        return Surroundings().workspace

    def error(factor: float) -> float:
        total = 0.0
        for p in measured:
            events = tracer.law("train", p.patch, p.batch).events(p.patch, p.batch)
            total += abs(replay(events, workspace=factor).peak_reserved / (p.reserved or 1) - 1)
        return total

    return min((i / 10 for i in range(31)), key=error)
