"""`ppgs stop`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.output import note, print_json
from ppgs.commands.monitor import choose_runs
from ppgs.commands.runs import row_of
from ppgs.commands.stop import ask_to_stop, ended, owner_here, working
from ppgs.errors import BadInput, NoSuchRun
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import command


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs stop",
        "ppgs stop demo-efficiency-fold0",
    )
    help.add(app, "stop", stop, "Train", examples)


def stop(
    runs: options.Runs = None,
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Stop trainings on this machine with a checkpoint, and wait until they have.

    Without RUN: the running training; if there are several, choose on a terminal. Stopping one run of a sweep stops
    the sweep.
    """
    chosen, _ = choose_runs(runs or _working(root), root, os.environ)
    # Stop none if one of them cannot be stopped.
    for run in chosen:
        owner_here(run)
    asked = [(run, ask_to_stop(run)) for run in chosen]
    records = []
    for run, owner in asked:
        manifest = ended(run, owner)
        told = f"; continue with: {command('resume', run, manifest.name)}" if manifest.status != "finished" else ""
        note(f"{manifest.name}: {manifest.status}{told}")
        records.append({"name": manifest.name, "path": str(run.path), "status": manifest.status})
    if as_json:
        print_json(records)


def _working(root: Path | None) -> list[str]:
    live = working(root, os.environ)
    if not live:
        raise NoSuchRun("nothing is being trained", "RUN", "'ppgs runs' lists all runs; --root says where they are")
    if len(live) == 1:
        return [str(live[0].path)]
    if not ask.somebody():
        names = ", ".join(read_manifest(run).name for run in live)
        raise BadInput(f"{len(live)} runs are being trained", "RUN", f"say which: {names}")
    rows = [row for run in live if (row := row_of(run)) is not None]
    return ask.choose_runs(rows, "run to stop", several=True, default=None)
