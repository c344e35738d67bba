"""The records of the event log, one type per event: their fields are checked when written and when read.

Units are in the descriptions; epochs, stages and iterations count from 0. Every field may be missing in logs of other
versions.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

Epoch = Annotated[int, "epoch"]
Stage = Annotated[int, "stage"]
Patch = Annotated[tuple[int, ...], "voxels (z, y, x)"]


class Common(TypedDict, total=False):
    """The fields of every record."""

    v: Annotated[int, "version of the log's format"]
    seq: Annotated[int, "number of the record in the log"]
    time: Annotated[float | None, "unix seconds"]
    type: Annotated[str, "event type"]


class RunQueued(Common, total=False):
    """The run waits in a queue."""

    where: Annotated[str, "the queue and the job's id there"]


class Preparing(Common, total=False):
    """Progress before the training: conversion, fingerprint, plans, preprocessing, estimates."""

    step: Annotated[str, "what is being done"]
    done: Annotated[int | None, "items done"]
    total: Annotated[int | None, "items in all; 0 where they are not counted"]


class StageDescription(TypedDict, total=False):
    """One stage, in `run_started`."""

    patch_size: Patch
    batch_size: Annotated[int, "samples of a batch"]
    epochs: Annotated[int, "epochs of this stage"]
    voxels: Annotated[int, "voxels of one patch"]
    validation_iterations: Annotated[int, "validation iterations of each epoch that is validated"]
    validation_interval: Annotated[int, "epochs from one that is validated to the next; 1 if it is missing"]
    memory_bytes: Annotated[int, "peak GPU memory as estimated; missing where it could not be"]
    flops_per_iteration: Annotated[int, "FLOPs of one iteration as estimated; missing where they could not be"]
    epoch_seconds: Annotated[list[float], "seconds of an epoch as estimated: low, middle, high; missing if unknown"]
    calibrated: Annotated[bool, "whether `epoch_seconds` come from steps measured on this machine"]


class RunStarted(Common, total=False):
    """A process begins or resumes the training."""

    name: Annotated[str, "the run's name"]
    task: Annotated[str, "nnU-Net's name of the dataset"]
    resumed: Annotated[bool, "whether it continues from a checkpoint"]
    epoch: Annotated[int, "epoch that it begins with"]
    iteration: Annotated[int, "iteration that it begins with"]
    epochs: Annotated[int, "epochs in all"]
    iterations_per_epoch: Annotated[int, "training iterations of each epoch"]
    device: Annotated[str, "cuda, cpu or mps"]
    gpus: Annotated[int, "GPUs that train together"]
    processes: Annotated[int, "processes that train together"]
    stages: Annotated[list[StageDescription], "the schedule's stages"]
    final_validation: Annotated[
        dict[str, Any] | None,
        "the work of the final validation: cases, windows, passes of each window through the network, seconds of one "
        "(pass_seconds, null if unknown), and of its start (start_seconds); null if unknown",
    ]
    budget: Annotated[str | None, "what decides on the number of epochs where it is not given"]


class BudgetPlanned(Common, total=False):
    """The remaining stages were replanned so that the training ends on time, and the next one is settled."""

    budget: Annotated[str | None, "the budget, or the time to end at"]
    epoch: Annotated[int, "first epoch of the plan"]
    epochs: Annotated[int, "epochs in all"]
    stages: Annotated[list[StageDescription], "the stages in all"]
    epoch_seconds: Annotated[list[float], "seconds expected of an epoch of each stage of the plan before"]
    left_seconds: Annotated[
        float,
        "seconds left for training; negative where time has run out; missing if unknown",
    ]
    validation_seconds: Annotated[float, "seconds expected of the final validation"]
    spent: Annotated[float, "seconds trained so far; watt-hours where the budget is of energy"]


class EarlyStopping(Common, total=False):
    """The training ends early: `--patience` epochs of the last stage brought no improvement."""

    epoch: Annotated[int, "last epoch that was trained"]
    patience: Annotated[int, "epochs without a better moving average after which training ends"]
    best_epoch: Annotated[int, "epoch of the best moving average"]
    ema_dice: Annotated[float, "that moving average"]


class StageStarted(Common, total=False):
    """The first epoch of a stage begins."""

    stage: Stage
    epoch: Epoch
    patch_size: Patch
    batch_size: Annotated[int, "samples of a batch"]


class Iterations(Common, total=False):
    """Progress within an epoch, at most a few times a second."""

    epoch: Epoch
    stage: Stage
    phase: Annotated[Literal["train", "validation"], "what the iterations are of"]
    iteration: Annotated[int, "iterations done"]
    iterations: Annotated[int, "iterations of this phase"]
    loss: Annotated[float | None, "loss of the last training batch; null where it is not known yet"]


class EpochFinished(Common, total=False):
    """An epoch and its validation are done, and its checkpoint if one was due."""

    epoch: Epoch
    stage: Stage
    train_loss: Annotated[float | None, "mean loss of the training batches"]
    val_loss: Annotated[float | None, "mean loss of the validation batches; null if the epoch was not validated"]
    pseudo_dice: Annotated[
        list[float | None],
        "Dice of each foreground class on the validation batches; nulls if the epoch was not validated",
    ]
    ema_dice: Annotated[float | None, "nnU-Net's moving average of the mean pseudo Dice"]
    learning_rate: Annotated[float | None, "learning rate"]
    seconds: Annotated[float | None, "seconds of the whole epoch"]
    train_seconds: Annotated[float | None, "seconds of its training"]
    validation_seconds: Annotated[float | None, "seconds of its validation"]
    checkpoint_seconds: Annotated[float | None, "seconds that the training waited for the checkpoint"]
    data_wait_seconds: Annotated[float | None, "seconds that the training waited for batches"]
    peak_memory_bytes: Annotated[int | None, "peak of the GPU's reserved memory; null on other devices"]
    train_peak_memory_bytes: Annotated[int | None, "peak during training"]
    validation_peak_memory_bytes: Annotated[int | None, "peak during validation"]
    energy_wh: Annotated[float | None, "energy of the epoch in watt-hours; null where it was not measured"]


class SliceWritten(Common, total=False):
    """A picture of a validation case was written."""

    epoch: Epoch
    stage: Stage
    file: Annotated[str, "its name in `ppgs/slices`"]
    case: Annotated[str, "the case"]
    slice_dice: Annotated[list[float | None], "Dice of each foreground class on the slice; null where it is not on it"]


class CheckpointSaved(Common, total=False):
    """A checkpoint is complete and on disk."""

    epoch: Annotated[int, "epochs that are trained"]
    iteration: Annotated[int, "iterations of the next epoch that are trained"]
    seconds: Annotated[float | None, "seconds that writing it took"]
    file: Annotated[str, "its name"]
    bytes: Annotated[int, "its size"]


class Warned(Common, total=False):
    """A problem that the user should know about, though the training continues."""

    message: Annotated[str, "what"]


class ValidationStarted(Common, total=False):
    """The final validation begins."""

    checkpoint: Annotated[str, "final, best or latest, where `ppgs validate` repeats it; missing in a training"]
    cases: Annotated[int | None, "cases to segment"]


class ValidationProgress(Common, total=False):
    """The final validation continues."""

    checkpoint: Annotated[str, "as in `validation_started`"]
    done: Annotated[int | None, "cases segmented"]
    total: Annotated[int | None, "cases in all"]


class ValidationFinished(Common, total=False):
    """The final validation's result, from nnU-Net's `summary.json`."""

    dice: Annotated[dict[str, float | None] | None, "mean Dice by class"]
    mean: Annotated[float | None, "mean over the foreground classes"]
    checkpoint: Annotated[str, "as in `validation_started`"]


class ValidationStopped(Common, total=False):
    """`ppgs validate` ended early; the run and its earlier validations are unchanged."""

    checkpoint: Annotated[str, "as in `validation_started`"]
    reason: Annotated[str, "why"]
    error: Annotated[dict[str, Any] | None, "the error, where one ended it: kind, problems, exit code"]


class RunFinished(Common, total=False):
    """The run was trained and validated."""


class RunStopped(Common, total=False):
    """The run stopped early with a checkpoint; `ppgs resume` continues it."""

    reason: Annotated[str, "why"]
    error: Annotated[dict[str, Any] | None, "the error, where one stopped it: kind, problems, exit code"]


class RunFailed(Common, total=False):
    """The run ended with an error."""

    reason: Annotated[str, "why"]
    error: Annotated[dict[str, Any] | None, "the error: kind, problems, exit code"]


_TYPES: tuple[Any, ...] = (
    RunQueued,
    Preparing,
    RunStarted,
    BudgetPlanned,
    EarlyStopping,
    StageStarted,
    Iterations,
    EpochFinished,
    SliceWritten,
    CheckpointSaved,
    Warned,
    ValidationStarted,
    ValidationProgress,
    ValidationFinished,
    ValidationStopped,
    RunFinished,
    RunStopped,
    RunFailed,
)


def _kind(type_: Any) -> str:
    # `warning` is the name of Python's own class.
    return "warning" if type_ is Warned else re.sub(r"(?<!^)(?=[A-Z])", "_", type_.__name__).lower()


EVENTS: Mapping[str, Any] = {_kind(type_): type_ for type_ in _TYPES}


def check_fields(kind: str, fields: Iterable[str]) -> None:
    """Raise `TypeError` for a record with a type or fields that no reader knows."""
    if kind not in EVENTS:
        raise TypeError(f"no event type '{kind}' in {__name__}")
    if unknown := set(fields) - EVENTS[kind].__annotations__.keys():
        raise TypeError(f"'{kind}' has no fields {sorted(unknown)} in {__name__}")


def json_types(kind: str) -> Mapping[str, frozenset[type]]:
    """Return the Python types of the fields of such records after reading them from JSON.

    A field that the record type lacks, or of an unknown record type, has the types it has in other records.
    """
    return _JSON_TYPES.get(kind, _ANYWHERE)


def _json_types(annotation: Any) -> frozenset[type]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _json_types(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return frozenset(one for part in get_args(annotation) for one in _json_types(part))
    if origin is Literal:
        return frozenset({str})
    plain: type = origin or annotation
    # JSON has no tuples, and whole numbers may have no point.
    read_as: dict[type, set[type]] = {float: {float, int}, tuple: {list}}
    return frozenset(read_as.get(plain, {plain}))


_OWN = {
    kind: {name: _json_types(hint) for name, hint in get_type_hints(type_, include_extras=True).items()}
    for kind, type_ in EVENTS.items()
}
_ANYWHERE: dict[str, frozenset[type]] = {}
for _fields in _OWN.values():
    for _name, _types in _fields.items():
        _ANYWHERE[_name] = _ANYWHERE.get(_name, frozenset()) | _types
_JSON_TYPES = {kind: {**_ANYWHERE, **fields} for kind, fields in _OWN.items()}
