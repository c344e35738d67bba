"""MLflow. Its steps are whole numbers, so every curve is written once for each axis."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL.Image import Image

from ppgs.runs.manifest import Status
from ppgs.trackers.curves import Point, Result, Slice
from ppgs.trackers.sinks import Parameter

_ENDS = {"finished": "FINISHED", "failed": "FAILED"}


class Sink:
    """A run at `MLFLOW_TRACKING_URI`, or else in a store of files in `FOLDER`."""

    def __init__(self, folder: Path, name: str, parameters: dict[str, Parameter], identity: str | None) -> None:
        # MLflow 3 refuses a store of files unless it is allowed; it is the only one without a database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or folder.resolve().as_uri())
        if identity is not None:
            self.identity = identity
            self._client.update_run(identity, status="RUNNING")
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ppgs"
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self.identity = str(self._client.create_run(number, run_name=name).info.run_id)
        self._client.log_batch(self.identity, params=[Param(key, str(value)) for key, value in parameters.items()])

    def _log(self, values: dict[str, float], time: float, step: int) -> None:
        # Names of classes may have characters that MLflow's keys may not.
        metrics = [self._metric(_key(name), value, int(1000 * time), step) for name, value in values.items()]
        self._client.log_batch(self.identity, metrics=metrics)

    def point(self, point: Point) -> None:
        for axis, step in point.steps.items():
            self._log({f"{axis}/{name}": value for name, value in point.scalars.items()}, point.time, step)

    def slice(self, slice_: Slice, image: Image) -> None:
        self._client.log_image(self.identity, image, f"slices/iteration_{slice_.iteration:07d}.png")

    def result(self, result: Result) -> None:
        values = {f"final_dice/{name}": value for name, value in result.dice.items()}
        self._log(values, result.time, result.iteration)

    def flush(self) -> None:
        """Do nothing: every call is written when it returns."""

    def close(self, status: Status) -> None:
        self._client.set_terminated(self.identity, _ENDS.get(status, "KILLED"))


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)
