"""Weights & Biases: one row for each epoch, with all axes as columns to plot against."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ppgs.runs.manifest import Status
from ppgs.trackers.curves import Point, Result, Slice
from ppgs.trackers.sinks import Parameter


class Sink:
    """A run in the project and mode that nnU-Net's variables name, or else W&B's own."""

    def __init__(self, folder: Path, name: str, parameters: dict[str, Parameter], identity: str | None) -> None:
        import wandb

        self._wandb = wandb
        # It knows which modes there are.
        mode: Any = os.environ.get("nnUNet_wandb_mode") or os.environ.get("WANDB_MODE") or "online"
        self._run = wandb.init(
            project=os.environ.get("nnUNet_wandb_project") or os.environ.get("WANDB_PROJECT") or "nnunet",
            mode=mode,
            id=identity,
            resume="allow",
            name=name,
            config=parameters,
            # W&B writes to a folder `wandb` in this one.
            dir=folder.parent,
            settings=wandb.Settings(console="off"),
        )
        self.identity = str(self._run.id)
        self._run.define_metric("*", step_metric="iteration")

    # Steps are given because a run that is continued offline would count from 0 again.
    def point(self, point: Point) -> None:
        self._run.log({**point.scalars, **point.axes}, step=point.iteration)

    def slice(self, slice_: Slice, image: Image) -> None:
        self._run.log({"slices": self._wandb.Image(image)}, step=slice_.iteration)

    def result(self, result: Result) -> None:
        self._run.summary.update({f"final_dice/{name}": value for name, value in result.dice.items()})

    def flush(self) -> None:
        """Do nothing: W&B's own process takes every row over when it is logged."""

    def close(self, status: Status) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)
