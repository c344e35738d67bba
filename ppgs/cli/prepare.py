"""`ppgs prepare`."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import typer

from ppgs.cli import help, options
from ppgs.cli.output import out, print_json
from ppgs.cli.progress import StepReporter, narrator
from ppgs.commands.prepare import prepare as prepare_task
from ppgs.tasks import Roots
from ppgs.wording import patch_text


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs prepare demo",
        "ppgs prepare data/Task04_Hippocampus --configuration 2d",
    )
    help.add(app, "prepare", prepare, "Plan", examples)


def prepare(
    task: options.TaskArgument,
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Convert, check, plan and preprocess a task without training it.

    Done steps are kept; an interrupted preparation goes on where it was.
    """
    roots = Roots.choose(root, os.environ)
    # nnU-Net prints its plans to stdout, which is for our result.
    with narrator(live=sys.stderr.isatty()) as narrate, contextlib.redirect_stdout(io.StringIO()):
        made = prepare_task(task, roots, plans, configuration, StepReporter(narrate))
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
            }
        )
        return
    out.print(
        f"{made.dataset} {made.facts.configuration}: patch {patch_text(made.facts.patch_size)}, "
        f"batch {made.facts.batch_size}, network step {patch_text(made.facts.step)}"
    )
