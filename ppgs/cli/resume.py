"""`ppgs resume`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.output import note
from ppgs.cli.train.follow import Detached, join_training, run_training
from ppgs.commands import torchrun
from ppgs.commands.resume import change_options, check_resumable, choose_run, rescale
from ppgs.commands.runs import list_runs
from ppgs.errors import ExitCode
from ppgs.tasks import Roots

_LEFT = ("interrupted", "stopped", "failed")


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs resume",
        "ppgs resume demo-efficiency-fold0 --detach",
    )
    help.add(app, "resume", resume, "Train", examples)


def resume(
    run: options.OptionalRun = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train N epochs in total: finished epochs stay, the rest is rescaled.",
            rich_help_panel="Curriculum",
        ),
    ] = None,
    skip_nonfinite: options.SkipNonfinite = False,
    as_prepared: Annotated[
        bool,
        typer.Option(
            "--as-prepared",
            help="Continue on the prepared cases although their raw data changed.",
            rich_help_panel="Task",
        ),
    ] = False,
    root: options.Root = None,
    gpus: options.Gpus = None,
    restarts: options.Restarts = None,
    workers: options.Workers = None,
    loader_timeout: options.LoaderTimeout = None,
    detach: options.Detach = False,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Continue a stopped or killed run exactly where its last checkpoint left it.

    Without RUN: the newest unfinished one; if there are several, choose on a terminal. An option that is left out stays
    what it was. A copied run folder is continued in its place; give --root if its task is elsewhere.
    """
    if run is None and ask.somebody() and not as_json and not torchrun.is_under(os.environ):
        left = [r for r in list_runs(Roots.choose(root, os.environ).results) if r.status in _LEFT]
        run = ask.choose_runs(left, "run to continue")[0] if len(left) > 1 else None
    chosen, roots = choose_run(run, root, os.environ)
    if torchrun.is_follower(os.environ):
        return join_training(chosen, roots)
    check_resumable(chosen, epochs)
    change_options(
        chosen,
        gpus=gpus,
        restarts=restarts,
        workers=workers,
        loader_timeout=loader_timeout,
        skip_nonfinite=skip_nonfinite,
        as_prepared=as_prepared,
    )
    if epochs is not None:
        note(rescale(chosen, epochs))
    try:
        return int(run_training(chosen, roots, tui=not no_tui, detach=detach, as_json=as_json))
    except Detached:
        return int(ExitCode.DONE)
