"""TensorBoard's event files. Its steps are whole numbers, so every curve is written once for each axis."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ppgs.runs.manifest import Status
from ppgs.trackers.curves import Point, Result, Slice
from ppgs.trackers.sinks import Parameter


class Sink:
    """Event files in `FOLDER/RUN`, which is also the run's name in TensorBoard."""

    def __init__(self, folder: Path, name: str, parameters: dict[str, Parameter], identity: str | None) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.identity = identity or name
        self._writer = EventFileWriter(str(folder / self.identity))
        if identity is None:
            self._start(parameters)

    def _start(self, parameters: dict[str, Parameter]) -> None:
        from tensorboard.plugins.hparams import plugin_data_pb2 as hparams
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

        info = hparams.SessionStartInfo(group_name=self.identity)
        for name, value in parameters.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(info.hparams[name], f"{kind}_value", value)
        self._hparams(SESSION_START_INFO_TAG, hparams.HParamsPluginData(session_start_info=info))

    def _hparams(self, tag: str, data: Any) -> None:
        from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

        self._add(None, 0, {tag: {"metadata": create_summary_metadata(data), "tensor": NULL_TENSOR}})

    def _add(self, time: float | None, step: int, values: dict[str, dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=tag, **content) for tag, content in values.items()])
        self._writer.add_event(Event(wall_time=time, step=step, summary=summary))

    def point(self, point: Point) -> None:
        for axis, step in point.steps.items():
            values = {f"{axis}/{name}": {"simple_value": value} for name, value in point.scalars.items()}
            self._add(point.time, step, values)

    def slice(self, slice_: Slice, image: Image) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        png = io.BytesIO()
        image.save(png, "PNG")
        content = Summary.Image(
            height=image.height, width=image.width, colorspace=3, encoded_image_string=png.getvalue()
        )
        self._add(slice_.time, slice_.iteration, {"slices": {"image": content}})

    def result(self, result: Result) -> None:
        values = {f"final_dice/{name}": {"simple_value": value} for name, value in result.dice.items()}
        self._add(result.time, result.iteration, values)

    def flush(self) -> None:
        self._writer.flush()

    def close(self, status: Status) -> None:
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

        ends = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
        if status in ends:
            info = plugin_data_pb2.SessionEndInfo(status=ends[status])
            self._hparams(SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info))
        self._writer.close()
