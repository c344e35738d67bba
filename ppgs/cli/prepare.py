"""`ppgs prepare`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ppgs.cli import help, options
from ppgs.cli.output import note, out, print_json, warn
from ppgs.cli.progress import StepReporter, byte_reporter, narrator
from ppgs.commands.prepare import Prepared, download_task
from ppgs.commands.prepare import prepare as prepare_task
from ppgs.formatting import patch_text
from ppgs.tasks import Roots


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs prepare demo",
        "ppgs prepare data/Task04_Hippocampus --configuration 2d",
        "ppgs prepare --download Task04_Hippocampus",
    )
    help.add(app, "prepare", prepare, "Plan", examples)


def prepare(
    task: options.TaskArgument,
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Fetch TASK (Task04_Hippocampus, or a path that ends so) of the Medical Segmentation Decathlon first.",
            rich_help_panel="Download",
        ),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="PPGS_DECATHLON_URL",
            help="Where TASK.tar lies. Default: the Decathlon's public archives.",
            rich_help_panel="Download",
        ),
    ] = None,
    geometry: options.Geometry = "header",
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Convert, check, plan and preprocess a task without training it.

    Done steps are kept; an interrupted preparation or download goes on where it was.
    """
    if download:
        folder = Path(task)
        with byte_reporter() as report:
            fresh = download_task(folder, mirror, report)
        note(f"{folder}: {'downloaded and checked' if fresh else 'is there already'}")
    made = make(task, Roots.choose(root, os.environ), plans, configuration, geometry=geometry)
    if as_json:
        print_json(
            {
                "dataset": made.dataset,
                "raw": str(made.raw),
                "preprocessed": str(made.preprocessed),
                "configuration": made.facts.configuration,
                "plans": made.facts.plans,
                "patch_size": made.facts.patch_size,
                "batch_size": made.facts.batch_size,
                "notes": list(made.notes),
            }
        )
        return
    out.print(
        f"{made.dataset} {made.facts.configuration}: patch {patch_text(made.facts.patch_size)}, "
        f"batch {made.facts.batch_size}, network step {patch_text(made.facts.step)}"
    )


def make(
    task: str, roots: Roots, plans: str, configuration: str, *, geometry: Literal["header", "voxel"] = "header"
) -> Prepared:
    """Prepare a task, told on stderr: nnU-Net prints its plans to stdout, which is for our result."""
    with narrator(live=sys.stderr.isatty()) as narrate, contextlib.redirect_stdout(io.StringIO()):
        report = StepReporter(narrate)
        return prepare_task(task, roots, plans, configuration, report, geometry=geometry, warn=warn)
