"""One module for each tracker, of the tracker's name, with a class `Sink` that writes what a run's curves add."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from PIL.Image import Image

from ppgs.runs.manifest import Status
from ppgs.trackers.curves import Point, Result, Slice

Parameter = bool | int | float | str


class Sink(Protocol):
    """One run at a tracker. The tracker finds the run by its `identity` after a resume."""

    identity: str

    def __init__(self, folder: Path, name: str, parameters: dict[str, Parameter], identity: str | None) -> None:
        """Begin a run, or continue the one of that identity, in `folder` if the tracker writes files."""

    def point(self, point: Point) -> None:
        """Log the scalars of an epoch."""

    def slice(self, slice_: Slice, image: Image) -> None:
        """Log a picture."""

    def result(self, result: Result) -> None:
        """Log the Dice of the final validation."""

    def flush(self) -> None:
        """Hand over all that was logged: after this, a kill of the process loses none of it."""

    def close(self, status: Status) -> None:
        """End it as the run ended, or as one that is interrupted."""


def sink_class(tracker: str) -> type[Sink]:
    """Return a tracker's class. The tracker's package is imported when the class is called."""
    return cast(type[Sink], import_module(f"ppgs.trackers.sinks.{tracker}").Sink)
