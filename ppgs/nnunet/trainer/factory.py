"""Construction of a trainer, the same in every process that takes part in a training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from pydantic import BaseModel

from ppgs import upstream
from ppgs.errors import BadInput, PlansError
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.determinism import use_deterministic_kernels
from ppgs.nnunet.host.devices import set_threads, workers_of
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.host.malloc import keep_released_memory
from ppgs.nnunet.network.precision import has_bfloat16
from ppgs.nnunet.trainer.compose import compose
from ppgs.nnunet.trainer.settings import Settings
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest
from ppgs.schedule import Schedule
from ppgs.trainers import DEFAULT


class Job(BaseModel):
    """Everything that rank 0 has prepared: enough for all ranks to build the same trainer.

    `predicted` are the stages' costs as estimated; `trained` says that only the validation is left.
    """

    manifest: Manifest
    schedule: Schedule
    plans: dict[str, Any]
    dataset: dict[str, Any]
    device: str
    first_stage: str | None
    predicted: list[dict[str, Any]]
    trained: bool
    continuing: bool


def build_trainer(
    *,
    label: str,
    trainer: str = DEFAULT,
    plans: dict[str, Any],
    configuration: str,
    fold: int | str,
    dataset_json: dict[str, Any],
    device: torch.device,
    continuing: bool,
) -> PpgsTrainer:
    """Build a trainer over nnU-Net's class `trainer`, named so that nnU-Net writes into the run's folder.

    The constructor changes the plans it is given, makes folders and opens a log: call it after validating.
    """
    kind = compose(label, PpgsTrainer, trainer)
    try:
        made: PpgsTrainer = kind(
            plans={**deepcopy(plans), "continue_training": continuing},
            configuration=configuration,
            fold=fold,
            dataset_json=deepcopy(dataset_json),
            device=device,
        )
    except (TypeError, KeyError) as error:
        if trainer == DEFAULT:
            raise
        raise BadInput(
            f"the constructor of {trainer} fails: {type(error).__name__}: {error}",
            inspect.getfile(kind.nnunet_trainer),
            "adapt it to the installed nnU-Net",
        ) from None
    return made


def make_trainer(
    job: Job,
    run: RunFolder,
    ranks: Ranks,
    *,
    emit: Callable[..., object],
    stop_requested: Callable[[], str | None],
    energy: EnergyMeter,
    plan: Callable[[Schedule], Schedule] | None = None,
) -> PpgsTrainer:
    """Return the initialised trainer of one process. Call it before `ranks.connect`, or nnU-Net's own DDP starts."""
    device, request = torch.device(job.device), job.manifest.request
    set_threads(device, ranks.local_count)
    if request.deterministic:
        use_deterministic_kernels()
    if device.type == "cpu":
        keep_released_memory()
    trainer = build_trainer(
        label=job.manifest.trainer,
        trainer=request.trainer,
        plans=job.plans,
        configuration=job.manifest.configuration,
        fold=job.manifest.fold,
        dataset_json=job.dataset,
        device=device,
        continuing=job.continuing,
    )
    if not job.continuing:
        _warn_of_lengths(trainer, job, emit)
    # The others write nnU-Net's files elsewhere, see `ppgs.nnunet.process.follower`.
    if ranks.rank == 0 and not run.path.samefile(trainer.output_folder):
        raise PlansError(
            f"nnU-Net would write this run into {trainer.output_folder}",
            run.path,
            "give the run's folder its name back, or correct plans_name and dataset_name in the plans",
        )
    if job.first_stage is not None:
        trainer.folder_with_segs_from_previous_stage = job.first_stage
    trainer.attach(
        Settings(
            run=run,
            schedule=job.schedule,
            seed=job.manifest.seed,
            workers=workers_of(request.workers, device, ranks.local_count),
            emit=emit,
            stop_requested=stop_requested,
            energy=energy,
            loader_timeout=request.loader_timeout,
            bfloat16=request.precision == "auto" and has_bfloat16(device),
            batchwise=request.augmentation == "batchwise",
            skip_nonfinite=request.skip_nonfinite,
            schedules=frozenset(job.manifest.schedules),
            predicted_memory=tuple(costs.get("memory_bytes") for costs in job.predicted),
            ranks=ranks,
            plan=plan,
            patience=request.patience,
            deterministic=request.deterministic,
            channels_last=request.channels_last,
            freeze=request.freeze or (),
        )
    )
    trainer.initialize()
    return trainer


def _warn_of_lengths(trainer: PpgsTrainer, job: Job, emit: Callable[..., object]) -> None:
    """Warn of a length of the training that the trainer class sets and the schedule does not."""
    request, schedule = job.manifest.request, job.schedule
    lengths = [("iterations", request.iterations, trainer.num_iterations_per_epoch, upstream.ITERATIONS)]
    if schedule.decayed is None:
        lengths.append(("epochs", request.epochs, trainer.num_epochs, upstream.EPOCHS))
    for what, asked, own, usual in lengths:
        trained = schedule.epochs if what == "epochs" else schedule.iterations_per_epoch
        if asked is None and own not in (usual, trained):
            message = f"{request.trainer} sets {own} {what}; the schedule's {trained} are used (change with --{what})"
            emit("warning", message=message)
