"""The request of a training. Every option of `train` is one field here; everything else follows from it.

The command line, the Python API, sweeps, Slurm jobs and completions take the fields as they stand, and the training
process reads them in `run.json`, where the request is stored whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppgs.errors import BadInput, Problems
from ppgs.tasks import Task
from ppgs.trainers import DEFAULT


class Panel(StrEnum):
    """Groups in which `--help` lists options."""

    TASK = "Task"
    CURRICULUM = "Curriculum"
    MACHINE = "Machine"
    RUN = "Run"


class Spelling(NamedTuple):
    """Spelling of a field on the command line; a switch has no metavar."""

    panel: Panel
    metavar: str | None = None


def _option(default: Any, help: str, panel: Panel, metavar: str | None = None, **limits: float) -> Any:
    """Make a field that is an option, named with dashes. `limits` are pydantic's (`ge`, `le`)."""
    field: Any = Field
    return field(default=default, description=help, json_schema_extra={"panel": panel, "metavar": metavar}, **limits)


class ScheduleOptions(BaseModel):
    """The options that `train` and `plan-schedule` share; those not given are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    configuration: str = _option("3d_fullres", "nnU-Net configuration.", Panel.TASK, "CONFIGURATION")
    plans: str = _option(
        "nnUNetPlans", "nnU-Net plans, such as nnUNetResEncUNetLPlans (also M, XL).", Panel.TASK, "PLANS"
    )
    epochs: int | None = _option(None, "Total number of epochs (nnU-Net: 1000).", Panel.CURRICULUM, "N", ge=1)
    iterations: int | None = _option(None, "Iterations per epoch (nnU-Net: 250).", Panel.CURRICULUM, "N", ge=1)
    batch_size: int | None = _option(None, "Overrides the plan's batch size.", Panel.CURRICULUM, "N", ge=1)
    mirroring: str | None = _option(
        None,
        "Mirrored axes in training and inference, such as 0,1 (off: for classes that differ only by side).",
        Panel.CURRICULUM,
        "on|off|AXES",
    )
    from_stage: int | None = _option(
        None,
        "First stage to train, counted from 1; the ones before are skipped (for pretrained networks).",
        Panel.CURRICULUM,
        "N",
        ge=1,
    )
    start_patch: str | None = _option(
        None, "First patch to train, such as 64,64,64; smaller ones are skipped.", Panel.CURRICULUM, "Z,Y,X"
    )
    gpu_memory: str | None = _option(
        None,
        "Memory to fit in: the GPU here, a size, or a card (rtx3090, a100-40gb, h100).",
        Panel.MACHINE,
        "auto|24GiB|CARD",
    )
    fit: bool = _option(False, "Change stages that do not fit, mildest remedy first.", Panel.MACHINE)
    device: str = _option("auto", "Device to compute on.", Panel.MACHINE, "auto|cuda|cpu|mps")
    gpus: int | None = _option(
        None,
        "Train on N GPUs of this machine, which share each batch (with --device cpu: N processes).",
        Panel.MACHINE,
        "N",
        ge=1,
        le=1024,
    )

    def shared(self) -> dict[str, Any]:
        """Return the options that both commands have, to build the other command's request from."""
        return {name: getattr(self, name) for name in ScheduleOptions.model_fields}

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Make a request with these options.

        Raises `TypeError` for an unknown option, as functions do, and `BadInput` naming every value that is wrong.
        """
        if unknown := sorted(given.keys() - cls.model_fields.keys()):
            raise TypeError(f"{cls.__name__} has no option '{unknown[0]}'")
        try:
            return cls(**{name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in given.items()})
        except ValidationError as invalid:
            problems = Problems()
            for error in invalid.errors(include_url=False):
                name = str(error["loc"][0]) if error["loc"] else "request"
                problems.add(error["msg"].lower(), name)
            problems.raise_as(BadInput, "the options of the training are wrong")
            raise


class TrainingRequest(ScheduleOptions):
    """The options of `train` and, once the training is planned, the values they were resolved to.

    Then `schedule` is the text of the schedule file or recipe and `schedule_name` its name; `kind` and `source` say
    what TASK is; `previous_stage` names the model folder of a cascade's first stage where it is not the one that was
    trained alike; `pretrained` is the checkpoint's or zip's path. `as_prepared` is `resume`'s: continue on prepared
    cases although their raw data changed.
    """

    schedule: str = _option(
        "efficiency",
        "efficiency (default), performance, constant, auto, random, pgps-2024, pgps-plus-2024, or a YAML file.",
        Panel.CURRICULUM,
        "SCHEDULE|FILE",
    )
    budget: str | None = _option(
        None,
        "Time or energy for the training and its final validation: as many epochs as fit.",
        Panel.CURRICULUM,
        "2h|0.5kWh",
    )
    until: str | None = _option(
        None,
        "Clock time to end at, such as 07:00 or 2026-12-01T07:00; job: the time limit of the Slurm job.",
        Panel.CURRICULUM,
        "TIME|job",
    )
    patience: int | None = _option(
        None,
        "Early stopping: end after N epochs of the last stage without a better moving average of Dice.",
        Panel.CURRICULUM,
        "N",
        ge=1,
    )
    seed: int = _option(0, "Random seed.", Panel.CURRICULUM, "N", ge=0, le=2**32 - 1)
    restarts: int | None = _option(
        None,
        "With --gpus: restart all processes from the last checkpoint when one dies, up to N times.",
        Panel.MACHINE,
        "N",
        ge=0,
        le=1000,
    )
    workers: int | None = _option(
        None, "Data-loader workers (default: chosen for this machine).", Panel.MACHINE, "N", ge=0, le=512
    )
    loader_timeout: float = _option(
        900.0, "Stop with a checkpoint if no batch arrives within this time.", Panel.MACHINE, "SECONDS", ge=1
    )
    skip_nonfinite: bool = _option(
        False,
        "Leave out batches whose loss or gradients are NaN or infinite, with a warning; else such a batch stops the "
        "training.",
        Panel.RUN,
    )
    precision: Literal["auto", "nnunet"] = _option(
        "auto",
        "auto: bfloat16 where the device is faster in it; nnunet: float16 on CUDA, float32 elsewhere.",
        Panel.MACHINE,
        "auto|nnunet",
    )
    deterministic: bool = _option(
        False,
        "Train repeatably on CUDA, bit for bit. Slower: without torch.compile and without timing kernels.",
        Panel.MACHINE,
    )
    channels_last: bool = _option(
        False,
        "Channels-last memory layout of the network, which may be faster on GPUs with tensor cores (default: off).",
        Panel.MACHINE,
    )
    augmentation: Literal["batchwise", "nnunet"] = _option(
        "batchwise",
        "batchwise: whole batches together; nnunet: nnU-Net's own transforms, sample by sample.",
        Panel.MACHINE,
        "batchwise|nnunet",
    )
    geometry: Literal["header", "voxel"] = _option(
        "header",
        "How voxels of channels and labels correspond: by their headers, which must agree (default), or by the order "
        "in which they are stored, as nnU-Net takes them.",
        Panel.TASK,
        "header|voxel",
    )
    trainer: str = _option(
        DEFAULT, "nnU-Net trainer class to put the curriculum on, nnU-Net's own or a lab's.", Panel.TASK, "TRAINER"
    )
    pretrained: str | None = _option(
        None,
        "Weights to start from: a run, a checkpoint of ppgs or nnU-Net (.pth), or an exported model zip.",
        Panel.TASK,
        "RUN|FILE",
    )
    freeze: list[str] | None = _option(
        None,
        "Parameters to keep fixed, by name ('encoder.*'); with --pretrained. Repeatable.",
        Panel.TASK,
        "PATTERN",
    )
    energy: bool = _option(True, "Measure energy, offline (CodeCarbon).", Panel.MACHINE)
    previous_stage: str | None = _option(
        None,
        "First-stage run for a cascade's second stage (default: the run with the same schedule, plans and seed).",
        Panel.TASK,
        "RUN",
    )
    log: str | None = _option(
        None,
        "Experiment trackers to feed beside the training, separated by commas.",
        Panel.RUN,
        "tensorboard|wandb|mlflow",
    )
    npz: bool = _option(False, "Keep the validation's probabilities, for ensembles.", Panel.RUN)
    name: str | None = _option(
        None, "Suffix that distinguishes this run from others with the same schedule.", Panel.RUN, "SUFFIX"
    )
    overwrite: bool = _option(False, "Replace a run of the same name.", Panel.RUN)

    kind: Literal["demo", "decathlon", "nnunet"] | None = None
    source: str | None = None
    schedule_name: str = ""
    as_prepared: bool = False

    def task_of(self, dataset: str) -> Task:
        """Return the task of a planned training, whose nnU-Net dataset has this name."""
        assert self.kind is not None
        return Task(self.task, dataset, self.kind, None if self.source is None else Path(self.source))

    @property
    def ends(self) -> str | None:
        """The budget or end time that determines the number of epochs, if one is given."""
        return self.budget or self.until

    @property
    def processes(self) -> int:
        """The number of processes that train together."""
        return self.gpus or 1


# A run that does not say continues as it began: in nnU-Net's way, its labels wherever they lay.
_OF_OLDER_RUNS = {"precision": "nnunet", "augmentation": "nnunet", "geometry": "voxel"}


def as_stored(request: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Read a request from `run.json` of any version; older ones kept some values only in the manifest."""
    of_manifest = {key: manifest[key] for key in ("configuration", "plans") if key in manifest}
    known = {key: value for key, value in request.items() if key in TrainingRequest.model_fields}
    return {**_OF_OLDER_RUNS, **of_manifest, **known}


def options_of(model: type[BaseModel]) -> dict[str, Spelling]:
    """Return the fields of a request that are command-line options, in the order of their help."""
    return {
        name: Spelling(**field.json_schema_extra)  # type: ignore[arg-type]  # as `_option` wrote it
        for name, field in model.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
    }
