"""Feed of one tracker from a run's event log; remembers its position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ppgs.errors import BadInput, RunError
from ppgs.pictures import DamagedPicture, Picture, contour, fit, overlaid, read_picture, resized, resized_labels
from ppgs.runs.atomic import write_text
from ppgs.runs.events import Record, Tail
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.trackers.curves import Curves, Point, Result, Slice
from ppgs.trackers.sinks import Parameter, Sink, sink_class

_SIDE = 384
# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
# Not hyperparameters: where things are, and what `run_started` knows better.
_UNSAID = {"task", "kind", "source", "name", "overwrite", "schedule", "schedule_name", "as_prepared", "log"}


class Feed:
    """A tracker's copy of a run, in `FOLDER/TRACKER`.

    What was sent is recorded there in `RUN.json`, so that neither a resume nor another export sends it twice.
    """

    def __init__(self, run: RunFolder, tracker: str, folder: Path) -> None:
        self._run, self._home = run, folder / tracker
        self._home.mkdir(exist_ok=True)
        self._manifest = read_manifest(run)
        self._memory = self._home / f"{self._manifest.name}.json"
        self._tracker = tracker
        self._sink: Sink | None = None
        self._parameters: dict[str, Parameter] | None = None
        self._tail, self._curves = Tail(run.events), Curves()
        self._known: dict[str, Any] = {"created": self._manifest.created, "identity": None, "seq": -1, "status": None}
        self._known |= _read(self._memory)
        if self._known["created"] != self._manifest.created:
            raise BadInput(
                "the folder has the curves of another run of this name", self._memory, "name another folder with -o"
            )

    def send(self) -> None:
        """Send what is new in the log."""
        while records := self._tail.read():
            sent: int | None = None
            try:
                for record in records:
                    if record["type"] == "run_started":
                        self._parameters = parameters_of(self._manifest, record)
                    parts = list(self._curves.apply(record))
                    if not parts or record["seq"] <= self._known["seq"]:
                        continue
                    for part in parts:
                        self._send(self._begun(), part)
                    sent = record["seq"]
            finally:
                # Also what went before one that fails, which is sent again.
                if sent is not None:
                    self._begun().flush()
                    self._remember(seq=sent, status=None)

    def _begun(self) -> Sink:
        """Return the tracker's run, which is begun or continued when there is something to send."""
        if self._sink is None:
            if self._parameters is None:
                raise RunError("nothing was trained yet", self._run.path)
            make = sink_class(self._tracker)
            self._sink = make(self._home, self._manifest.name, self._parameters, self._known["identity"])
            self._remember(identity=self._sink.identity)
        return self._sink

    def _remember(self, **changes: Any) -> None:
        self._known |= changes
        write_text(self._memory, json.dumps(self._known) + "\n")

    def _send(self, sink: Sink, part: Point | Slice | Result) -> None:
        if isinstance(part, Point):
            sink.point(part)
        elif isinstance(part, Result):
            sink.result(part)
        else:
            try:
                picture = read_picture(self._run.slices / Path(part.file).name)
            except DamagedPicture:
                return
            sink.slice(part, draw(picture))

    def close(self) -> None:
        """End the tracker's run with the status of this one; raises `RunError` if nothing was trained yet."""
        status = read_manifest(self._run).status
        if status != self._known["status"]:
            self._begun().close(status)
            self._remember(status=status)


def parameters_of(manifest: Manifest, started: Record) -> dict[str, Parameter]:
    """Return a run's hyperparameters: the options of the training, and what they were found to mean."""
    found: dict[str, Any] = {
        **manifest.request.model_dump(exclude=_UNSAID, exclude_none=True),
        "dataset": manifest.dataset,
        "schedule": manifest.schedule,
        "fold": manifest.fold,
        "device": started.get("device"),
        "epochs": started.get("epochs"),
        "iterations": started.get("iterations_per_epoch"),
    }
    stages = started.get("stages") or []
    found["stages"] = len(stages)
    for name, stage in (("first", stages[0]), ("last", stages[-1])) if stages else ():
        found[f"{name}_patch_size"] = "x".join(map(str, stage["patch_size"]))
        found[f"{name}_batch_size"] = stage["batch_size"]
    return {name: value for name, value in found.items() if isinstance(value, Parameter)}


def draw(picture: Picture) -> Image.Image:
    """Return the reference over the slice and, right of it, the prediction, at the right aspect."""
    size = fit(picture, _SIDE, _SIDE)
    grey = resized(picture.image, size)
    panels = Image.new("RGB", (2 * size[0], size[1]))
    for number, labels in enumerate((picture.reference, picture.prediction)):
        large = resized_labels(labels, size)
        classes = [(large == label, _COLOURS[int(label - 1) % len(_COLOURS)]) for label in set(large.flat) - {0}]
        fills = [(where, colour, 0.35) for where, colour in classes]
        lines = [(where & contour(large), colour, 1.0) for where, colour in classes]
        panels.paste(Image.fromarray(overlaid(grey, [*fills, *lines])), (number * size[0], 0))
    return panels


def _read(memory: Path) -> dict[str, Any]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
