"""`ppgs train`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ppgs.cli import options
from ppgs.cli.output import note
from ppgs.cli.training import Detached, run_training
from ppgs.commands.train import TrainRequest, create_run
from ppgs.errors import ExitCode
from ppgs.tasks import Roots, parse_folds


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    task: options.TaskArgument,
    schedule: options.Schedule = "efficiency",
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    fold: Annotated[
        str, typer.Option(metavar="K", help="0, 0,2, 0-4, or all: one model on all cases.", rich_help_panel="Task")
    ] = "0",
    epochs: options.Epochs = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Of everything random.", rich_help_panel="Curriculum")
    ] = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
    loader_timeout: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Without a batch for so long, stop resumable.", rich_help_panel="Machine"
        ),
    ] = 900.0,
    gpu_memory: options.GpuMemory = None,
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Change stages that do not fit, as plan-schedule says.", rich_help_panel="Machine"),
    ] = False,
    energy: Annotated[
        bool,
        typer.Option("--energy/--no-energy", help="Measure energy, offline (CodeCarbon).", rich_help_panel="Machine"),
    ] = True,
    root: options.Root = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="SUFFIX", help="Tells this run from others of the same schedule.", rich_help_panel="Run"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of the same name.", rich_help_panel="Run")
    ] = False,
    detach: options.Detach = False,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Prepare what is missing, train under a schedule, and validate.

    Ctrl-C (or SIGTERM, SIGUSR1) stops with a checkpoint; [bold]ppgs resume[/] continues exactly there.

    Examples:

      ppgs train demo

      ppgs train Task04_Hippocampus --schedule performance --fold 0-4
    """
    if name is not None and not all(c.isalnum() or c in "-." for c in name):
        raise typer.BadParameter("use letters, digits, - and .", param_hint="--name")
    roots = Roots.choose(root, os.environ)
    asked = TrainRequest(
        task=task,
        schedule=schedule,
        configuration=configuration,
        plans=plans,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        gpu_memory=gpu_memory,
        fit=fit,
        seed=seed,
        device=device,
        workers=workers,
        loader_timeout=loader_timeout,
        energy=energy,
        name=name,
        overwrite=overwrite,
    )
    code, folds = ExitCode.DONE, parse_folds(fold)
    for number in folds:
        run = create_run(asked, number, roots)
        try:
            code = run_training(run, roots, tui=not no_tui, detach=detach, as_json=as_json)
        except Detached:
            if later := folds[folds.index(number) + 1 :]:
                note(f"not started: fold {', '.join(map(str, later))}")
            break
        if code != ExitCode.DONE:
            break
    return int(code)
