"""`ppgs train`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.train.follow import Detached, join_training, run_training
from ppgs.cli.train.questions import FIRST_TASK, choose_task, may_begin
from ppgs.cli.train.sweep import check_sweep, detach_sweep, run_sweep, submit_sweep
from ppgs.commands import torchrun
from ppgs.commands.slurm import gpus_of, parse_options
from ppgs.commands.train.plan import create_run, plan_run
from ppgs.commands.train.sweep import plan_sweep
from ppgs.errors import BadInput, ExitCode
from ppgs.nnunet.host.environment import check_numbers, given_workers
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots, parse_folds


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs train demo",
        "ppgs train Task04_Hippocampus --schedule performance --fold 0-4",
        "ppgs train Task02_Heart Task09_Spleen --schedule efficiency,constant",
        "ppgs train Task09_Spleen --gpus 4",
        "ppgs train Task09_Spleen --fold 0-4 --slurm partition=gpu,time=4h,mem=32G",
    )
    help.add(app, "train", train, "Train", examples)


@options.with_request
def train(
    tasks: options.Tasks = None,
    fold: Annotated[
        str, typer.Option(metavar="K", help="0, 0,2, 0-4, or all: one model on all cases.", rich_help_panel="Task")
    ] = "0",
    *,
    asked: TrainingRequest,
    root: options.Root = None,
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
            help="Submit as Slurm jobs: partition, time (4h; requeued until finished), gpus, cpus, mem, "
            "parallel, signal (seconds of warning), and any option of sbatch.",
            rich_help_panel="Slurm",
        ),
    ] = None,
    slurm_dry_run: options.SlurmDryRun = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Start without asking, however long it takes.", rich_help_panel="Run"),
    ] = False,
    detach: options.Detach = False,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Prepare what is missing, train under a schedule, and validate.

    's' in the monitor, Ctrl-C without it, SIGTERM and SIGUSR1 stop with a checkpoint; 'ppgs resume' continues exactly
    there.

    Several tasks, folds, schedules (a,b) or configurations (a,b) are a sweep: one training after another, or one per
    GPU. Run the same command again to continue unfinished ones; 'ppgs runs' shows the status.
    """
    if detach and (slurm is not None or slurm_dry_run):
        raise typer.BadParameter("Slurm's jobs run in the background anyway", param_hint="--detach")
    roots = Roots.choose(root, os.environ)
    arguments = sys.argv[1:]
    by_hand = ask.somebody() and not as_json and slurm is None and not slurm_dry_run
    if not tasks:
        if not by_hand:
            raise ask.need("TASK", "train", FIRST_TASK)
        tasks = [choose_task(roots)]
        arguments += tasks
    asked = asked.model_copy(update={"task": tasks[0]})
    parameters = None
    if slurm is not None or slurm_dry_run:
        check_numbers()
        workers = given_workers() if asked.workers is None else asked.workers
        parameters = parse_options(slurm or [], device=asked.device, workers=workers, gpus=asked.gpus)
        if asked.device != "cpu" and asked.gpus is None:
            asked = asked.model_copy(update={"gpus": gpus_of(parameters)})
    if torchrun.is_follower(os.environ):
        # Rank 0 decides whether the run may begin; it may be creating the folder right now.
        return join_training(plan_run(asked, parse_folds(fold)[0], roots)[0], roots)
    planned = plan_sweep(tasks, asked, fold, roots)
    if parameters is not None:
        submit_sweep(planned, roots, _again(arguments), parameters, dry_run=slurm_dry_run, as_json=as_json)
        return int(ExitCode.DONE)
    if len(planned) > 1:
        check_sweep(planned, roots, jobs=jobs)
    if torchrun.is_under(os.environ):
        if len(planned) > 1 or detach:
            raise BadInput("torchrun trains one run at a time, in the foreground", "", "give one task, fold, schedule")
    elif by_hand and not yes and not may_begin(planned, roots):
        return int(ExitCode.STOPPED)
    if len(planned) > 1:
        if detach:
            detach_sweep(planned, roots, _again(arguments), arguments, as_json=as_json)
            return int(ExitCode.DONE)
        return int(run_sweep(planned, roots, _again(arguments), jobs=jobs, tui=not no_tui, as_json=as_json))
    one, again = planned[0], torchrun.is_another_try(os.environ)
    run = one.claim(roots, again=True) if again else create_run(one.asked, one.fold, roots)
    try:
        return int(run_training(run, roots, tui=not no_tui, detach=detach, as_json=as_json))
    except Detached:
        return int(ExitCode.DONE)


def _again(arguments: list[str]) -> str:
    """Return the command that continues this one's work."""
    return shlex.join(["ppgs", *(a for a in arguments if a not in ("--overwrite", "--detach"))])
