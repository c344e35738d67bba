"""`ppgs monitor`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.output import note
from ppgs.commands.monitor import RunControl, choose_runs
from ppgs.commands.runs import list_runs
from ppgs.errors import BadInput, ExitCode
from ppgs.runs.manifest import read_manifest
from ppgs.runs.names import WORKING
from ppgs.runs.registry import command
from ppgs.tasks import Roots


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs monitor",
        "ppgs monitor demo-efficiency-fold0 demo-constant-fold0",
    )
    help.add(app, "monitor", monitor, "Train", examples)


def monitor(
    runs: options.Runs = None,
    refresh: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Seconds between updates.")
    ] = 1.0,
    root: options.Root = None,
) -> int:
    """Watch runs, live or finished, in the terminal. Without RUN: the running one, else a choice.

    Closing the monitor does not affect a training. '?' shows the keys.
    """
    if not runs and ask.somebody():
        known = list_runs(Roots.choose(root, os.environ).results)
        live = [row for row in known if row.status in WORKING]
        runs = ask.choose_runs(live or known, "run to watch", several=True) if len(live or known) > 1 else None
    chosen, roots = choose_runs(runs or [], root, os.environ)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput(
            "the monitor needs a terminal", "stdin or stdout", "'ppgs runs --json' prints the status of runs"
        )
    from ppgs.tui.app import watch

    control = RunControl(roots)
    _, code = watch(chosen, control, refresh=refresh)
    for run, child in control.children.items():
        if child.process.poll() is None:
            name = read_manifest(run).name
            note(f"{name} trains on as process {child.process.pid}; come back with: {command('monitor', run, name)}")
    return int(ExitCode.UNFORESEEN if code else ExitCode.DONE)
