"""`ppgs resume`."""

from __future__ import annotations

import os

import typer

from ppgs.cli import help, options
from ppgs.cli.training import Detached, run_training
from ppgs.commands.resume import check_resumable, choose_run
from ppgs.errors import ExitCode


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs resume",
        "ppgs resume demo-efficiency-fold0 --detach",
    )
    help.add(app, "resume", resume, "Train", examples)


def resume(
    run: options.OptionalRun = None,
    root: options.Root = None,
    detach: options.Detach = False,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Continue a stopped or killed run exactly where its last checkpoint left it.

    Without RUN: the newest unfinished one. A copy of a run's folder elsewhere is continued there; give --root when its
    task lies somewhere else.
    """
    chosen, roots = choose_run(run, root, os.environ)
    check_resumable(chosen)
    try:
        return int(run_training(chosen, roots, tui=not no_tui, detach=detach, as_json=as_json))
    except Detached:
        return int(ExitCode.DONE)
