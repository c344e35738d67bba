"""`ppgs runs`."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from ppgs.cli import help, options
from ppgs.cli.output import note, out, print_json
from ppgs.cli.runs_table import table_of
from ppgs.cli.train.sweep_table import record, seconds_left, show_sweep
from ppgs.commands.runs import RunRow, list_runs
from ppgs.runs.folder import RunFolder
from ppgs.runs.registry import command, unreadable
from ppgs.runs.sweep import find_sweeps
from ppgs.tasks import Roots


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs runs",
        "ppgs runs --json",
    )
    help.add(app, "runs", runs, "Train", examples)


def runs(
    sweeps: Annotated[
        bool, typer.Option("--sweeps", help="Show only the matrices of sweeps, including finished ones.")
    ] = False,
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """List all runs and sweeps with their status."""
    roots = Roots.choose(root, os.environ)
    if sweeps:
        found = list(find_sweeps(roots.results))
        if as_json:
            print_json([record(sweep, roots.results) for sweep in found])
        elif not found:
            note(f"no sweeps in {roots.results}; start one with: ppgs train demo --schedule efficiency,constant")
        for sweep in found if not as_json else ():
            show_sweep(sweep, roots.results)
        return
    rows = list_runs(roots.results, roots.preprocessed)
    if as_json:
        print_json([_record(row) for row in rows])
        return
    for path in unreadable(roots.results):
        note(f"permission denied, and no run is listed: {path}")
    if not rows:
        note(f"no runs in {roots.results}; start one with: ppgs train demo")
        return
    out.print(table_of(rows))
    for row in rows:
        if row.stalled_since is not None:
            since = time.strftime("%d %b %H:%M", time.localtime(row.stalled_since))
            stop = command("stop", RunFolder(row.path), row.manifest.name)
            note(f"{row.manifest.name} has made no progress since {since}; {row.path / 'ppgs' / 'train.log'}; {stop}")
    if any(row.older_data for row in rows):
        note("older data: the cases that the run was trained on were changed, added or removed since")
    done = {row.path for row in rows if row.status == "finished"}
    for sweep in find_sweeps(roots.results):
        if not all(cell.run(roots.results).path in done for cell in sweep.cells):
            out.print()
            show_sweep(sweep, roots.results)


def _record(row: RunRow) -> dict[str, object]:
    state = row.state
    return {
        "name": row.manifest.name,
        "path": str(row.path),
        "status": row.status,
        "schedule": row.manifest.schedule,
        "dataset": row.manifest.dataset,
        "fold": row.manifest.fold,
        "stage": state.stage,
        "stages": len(state.stages),
        "epoch": state.epoch,
        "epochs": state.epochs,
        "mean_dice": state.mean_dice,
        "ema_dice": (state.last_epoch or {}).get("ema_dice"),
        "stalled": row.stalled_since is not None,
        "stalled_since": row.stalled_since,
        "older_data": row.older_data,
        **seconds_left(state),
    }
