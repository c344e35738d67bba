"""`ppgs train`."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from typing import Annotated, Literal

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.train.follow import Detached, join_training, run_training
from ppgs.cli.train.questions import choose_task, may_begin
from ppgs.cli.train.sweep import detach_sweep, run_sweep, submit_sweep
from ppgs.commands import torchrun
from ppgs.commands.slurm import gpus_of, parse_options
from ppgs.commands.train.plan import TrainRequest, create_run
from ppgs.commands.train.sweep import plan_sweep
from ppgs.errors import BadInput, ExitCode
from ppgs.tasks import Roots


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs train demo",
        "ppgs train Task04_Hippocampus --schedule performance --fold 0-4",
        "ppgs train Task02_Heart Task09_Spleen --schedule efficiency,constant",
        "ppgs train Task09_Spleen --gpus 4",
        "ppgs train Task09_Spleen --fold 0-4 --slurm partition=gpu,time=4h,mem=32G",
    )
    help.add(app, "train", train, "Train", examples)


def train(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK",
            help="'demo', a Decathlon folder (.../Task04_Hippocampus), or an nnU-Net dataset id or name.",
            show_default=False,
        ),
    ] = None,
    schedule: options.Schedule = None,
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    fold: Annotated[
        str, typer.Option(metavar="K", help="0, 0,2, 0-4, or all: one model on all cases.", rich_help_panel="Task")
    ] = "0",
    epochs: options.Epochs = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    mirroring: options.Mirroring = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Of everything random.", rich_help_panel="Curriculum")
    ] = 0,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    restarts: options.Restarts = None,
    workers: options.Workers = None,
    loader_timeout: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Without a batch for so long, stop resumable.", rich_help_panel="Machine"
        ),
    ] = 900.0,
    skip_nonfinite: options.SkipNonfinite = False,
    precision: Annotated[
        Literal["auto", "nnunet"],
        typer.Option(
            metavar="auto|nnunet",
            help="auto: bfloat16 where the device computes in it; nnunet: float16 on CUDA, float32 elsewhere.",
            rich_help_panel="Machine",
        ),
    ] = "auto",
    augmentation: Annotated[
        Literal["batchwise", "nnunet"],
        typer.Option(
            metavar="batchwise|nnunet",
            help="A whole batch at once, or nnU-Net's own transforms, sample by sample.",
            rich_help_panel="Machine",
        ),
    ] = "batchwise",
    geometry: options.Geometry = "header",
    gpu_memory: options.GpuMemory = None,
    fit: options.Fit = False,
    energy: Annotated[
        bool,
        typer.Option("--energy/--no-energy", help="Measure energy, offline (CodeCarbon).", rich_help_panel="Machine"),
    ] = True,
    previous_stage: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Of a cascade's second stage: a run of its first. Default: what was trained alike.",
            rich_help_panel="Task",
        ),
    ] = None,
    npz: Annotated[
        bool,
        typer.Option("--npz", help="Keep the validation's probabilities, for ensembles.", rich_help_panel="Run"),
    ] = False,
    root: options.Root = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="SUFFIX", help="Tells this run from others of the same schedule.", rich_help_panel="Run"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of the same name.", rich_help_panel="Run")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, metavar="N", help="Trainings at a time; default: one per GPU.", rich_help_panel="Machine"
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Submit as Slurm jobs: partition, time (4h; put back into the queue until done), gpus, cpus, mem, "
            "parallel, signal (seconds of warning), and any option of sbatch.",
            rich_help_panel="Slurm",
        ),
    ] = None,
    slurm_dry_run: Annotated[
        bool, typer.Option("--slurm-dry-run", help="Print the script, submit nothing.", rich_help_panel="Slurm")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Begin without a question, however long it takes.", rich_help_panel="Run"),
    ] = False,
    detach: options.Detach = False,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Prepare what is missing, train under a schedule, and validate.

    Ctrl-C (or SIGTERM, SIGUSR1) stops with a checkpoint; 'ppgs resume' continues exactly there.

    Several tasks, folds, schedules (a,b) or configurations (a,b) are a sweep: one training after another, or one per
    GPU. The same command goes on with what is not finished; 'ppgs runs' shows what is.
    """
    if name is not None and not all(c.isalnum() or c in "-." for c in name):
        raise typer.BadParameter("use letters, digits, - and .", param_hint="--name")
    if detach and (slurm is not None or slurm_dry_run):
        raise typer.BadParameter("Slurm's jobs run in the background anyway", param_hint="--detach")
    roots = Roots.choose(root, os.environ)
    arguments = sys.argv[1:]
    by_hand = ask.somebody() and not as_json and slurm is None and not slurm_dry_run
    if not tasks:
        if not by_hand:
            raise ask.need("TASK", "train")
        tasks = [choose_task(roots)]
        arguments += tasks
    asked = TrainRequest(
        task=tasks[0],
        schedule=schedule or "efficiency",
        configuration=configuration,
        plans=plans,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        mirroring=mirroring,
        gpu_memory=gpu_memory,
        fit=fit,
        seed=seed,
        device=device,
        gpus=gpus,
        restarts=restarts,
        workers=workers,
        loader_timeout=loader_timeout,
        precision=precision,
        augmentation=augmentation,
        energy=energy,
        skip_nonfinite=skip_nonfinite,
        previous_stage=previous_stage,
        npz=npz,
        geometry=geometry,
        name=name,
        overwrite=overwrite,
    )
    parameters = None
    if slurm is not None or slurm_dry_run:
        parameters = parse_options(slurm or [], device=device, workers=workers, gpus=gpus)
        asked = replace(asked, gpus=gpus if device == "cpu" else gpus or gpus_of(parameters))
    planned = plan_sweep(tasks, asked, fold, roots)
    if parameters is not None:
        submit_sweep(planned, roots, _again(arguments), parameters, dry_run=slurm_dry_run, as_json=as_json)
        return int(ExitCode.DONE)
    if torchrun.is_under(os.environ):
        if len(planned) > 1 or detach:
            raise BadInput("torchrun trains one run at a time, in the foreground", "", "give one task, fold, schedule")
    elif by_hand and not yes and not may_begin(planned, roots):
        return int(ExitCode.STOPPED)
    if len(planned) > 1:
        if detach:
            detach_sweep(planned, roots, _again(arguments), arguments)
            return int(ExitCode.DONE)
        return int(run_sweep(planned, roots, _again(arguments), jobs=jobs, tui=not no_tui, as_json=as_json))
    if torchrun.is_follower(os.environ):
        return join_training(planned[0].run, roots)
    one, again = planned[0], torchrun.is_another_try(os.environ)
    run = one.claim(roots) if again else create_run(one.asked, one.fold, roots)
    try:
        return int(run_training(run, roots, tui=not no_tui, detach=detach, as_json=as_json))
    except Detached:
        return int(ExitCode.DONE)


def _again(arguments: list[str]) -> str:
    """The command that goes on with what this one began."""
    return shlex.join(["ppgs", *(a for a in arguments if a not in ("--overwrite", "--detach"))])
