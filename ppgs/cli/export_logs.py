"""`ppgs runs export-logs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ppgs.cli import help, options
from ppgs.cli.output import note, out
from ppgs.commands.trackers import export_logs as export


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs runs export-logs demo-efficiency-fold0 --to tensorboard",
        "ppgs runs export-logs demo-efficiency-fold0 --to tensorboard,mlflow -o logs",
    )
    help.add(app, "runs export-logs", export_logs, "Use", examples)


def export_logs(
    run: options.Run,
    to: Annotated[
        str,
        typer.Option(
            metavar="tensorboard|wandb|mlflow",
            help="Trackers, separated by commas.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Folder for the trackers' files (default: ppgs/trackers in the run's folder).",
            rich_help_panel="Output",
        ),
    ] = None,
    root: options.Root = None,
) -> None:
    """Send a run's curves to TensorBoard, W&B or MLflow.

    Curves against epochs, iterations, hours and kWh, slices, hyperparameters and the final Dice. Only what a tracker
    does not have yet is sent, so that the command can be repeated while the run trains or after a failure.
    """
    found, folder = export(run, to, output, root)
    note(f"{found.path} was sent to {to}")
    out.print(str(folder), markup=False)
