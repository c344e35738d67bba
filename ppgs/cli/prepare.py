"""`ppgs prepare`."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.output import note, out, print_json, warn
from ppgs.cli.own_data import ask_names
from ppgs.cli.progress import StepReporter, byte_reporter, narrator
from ppgs.commands.own_data import OwnDataRequest, make_dataset
from ppgs.commands.prepare import Prepared, check_download, download_task
from ppgs.commands.prepare import prepare as prepare_task
from ppgs.errors import BadInput
from ppgs.formatting import patch_text
from ppgs.schedule import PlanFacts
from ppgs.tasks import Roots, shortest_name


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs prepare demo",
        "ppgs prepare data/Task04_Hippocampus --configuration 2d",
        "ppgs prepare --download Task04_Hippocampus",
        "ppgs prepare --images scans --labels masks --name Liver --label 1=liver",
    )
    help.add(app, "prepare", prepare, "Plan", examples)


def prepare(
    task: options.OptionalTask = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images: NIfTI, NRRD, MHA, PNG or TIFF; channels by suffix (_0000, _t1).",
            rich_help_panel="Own data",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of their labels, one per case, named like the images.",
            rich_help_panel="Own data",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the new dataset.", rich_help_panel="Own data")
    ] = None,
    dataset_id: Annotated[
        int | None,
        typer.Option(
            "--id",
            min=1,
            metavar="N",
            help="Number of the new dataset (default: a free one from 101 on).",
            rich_help_panel="Own data",
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME",
            help="Name of a channel, by number or suffix: 0=CT (normalised as CT), t1=T1. Repeatable.",
            rich_help_panel="Own data",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE=NAME",
            help="Name of a label value: 1=liver; 255=ignore leaves voxels out. Repeatable.",
            rich_help_panel="Own data",
        ),
    ] = None,
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    plans_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE",
            help="Plans of another dataset, transferred by nnU-Net: a run, checkpoint, model zip or plans file "
            "(default name: NAMEFromDATASET).",
            rich_help_panel="Task",
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Download TASK (Task04_Hippocampus, or a path ending in it) of the Medical Segmentation Decathlon.",
            rich_help_panel="Download",
        ),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="PPGS_DECATHLON_URL",
            help="URL of the folder with TASK.tar. Default: the Decathlon's public archives.",
            rich_help_panel="Download",
        ),
    ] = None,
    geometry: options.Geometry = "header",
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Convert, check, plan and preprocess a task without training it.

    Finished steps are kept; an interrupted preparation or download resumes where it stopped.

    With --images, --labels and --name instead of TASK, the two folders become an nnU-Net dataset first, with links to
    their files. The same command later applies changes in them.
    """
    roots = Roots.choose(root, os.environ)
    own = {"--images": images, "--labels": labels, "--name": name}
    others = {"--id": dataset_id, "--channel": channel, "--label": label}
    notes: list[str] = []
    if any((*own.values(), *others.values())):
        request = _own_data(task, own, others)
        if download:
            raise BadInput("--download fetches a Decathlon task, not folders of your own", "--download", "leave it out")
        task = _make_dataset(request, roots, geometry, notes, can_ask=not as_json and ask.somebody())
    elif task is None:
        raise BadInput(
            "missing argument 'TASK'",
            "ppgs prepare",
            "give a task (ppgs prepare demo), or data of your own: ppgs prepare --images DIR --labels DIR --name NAME",
        )
    if download:
        folder = Path(task)
        check_download(task, roots, plans, configuration, plans_from=plans_from)
        with byte_reporter() as report:
            fresh = download_task(folder, mirror, report)
        note(f"{folder}: {'downloaded and checked' if fresh else 'is there already'}")
    made = make(task, roots, plans, configuration, geometry=geometry, plans_from=plans_from)
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
                "notes": [*notes, *made.notes],
            }
        )
        return
    out.print(
        f"{made.dataset} {made.facts.configuration}: patch {patch_text(made.facts.patch_size)}, "
        f"batch {made.facts.batch_size}, network step {patch_text(made.facts.step)}"
    )
    if images is not None or plans_from is not None:
        given = shortest_name(made.dataset, roots) if images is not None else task
        note(
            f"train it with: {_training_command(given, made.facts, root, geometry, pretrained=plans_from is not None)}"
        )


def _training_command(task: str, facts: PlanFacts, root: Path | None, geometry: str, *, pretrained: bool) -> str:
    """Return the command that trains what was prepared, with the options that are not defaults."""
    words = ["ppgs", "train", task]
    for option, value, default in (
        ("--configuration", facts.configuration, "3d_fullres"),
        ("--plans", facts.plans, "nnUNetPlans"),
        ("--geometry", geometry, "header"),
        ("--root", None if root is None else str(root), None),
    ):
        words += [option, str(value)] if value != default else []
    return shlex.join([*words, *(["--pretrained", "CHECKPOINT"] if pretrained else [])])


def _own_data(task: str | None, own: Mapping[str, Any], others: Mapping[str, Any]) -> OwnDataRequest:
    """Return the request for a dataset made from two folders; raises `BadInput` if an option is missing."""
    if task is not None:
        raise BadInput(
            f"both a task ({task}) and folders of your own are given", "ppgs prepare", "leave TASK out, or the options"
        )
    if missing := [option for option, value in own.items() if not value]:
        raise BadInput(
            f"missing {' and '.join(missing)}",
            "ppgs prepare",
            "data of your own take three options: --images DIR --labels DIR --name NAME",
        )
    return OwnDataRequest(
        images=own["--images"],
        labels=own["--labels"],
        name=own["--name"],
        dataset_id=others["--id"],
        channels=tuple(others["--channel"] or ()),
        values=tuple(others["--label"] or ()),
    )


def _make_dataset(
    request: OwnDataRequest, roots: Roots, geometry: Literal["header", "voxel"], notes: list[str], *, can_ask: bool
) -> str:
    """Make the dataset; report matches and assumptions on stderr and in `notes`."""

    def told(message: str) -> None:
        notes.append(message)
        note(message)

    def warned(message: str) -> None:
        notes.append(message)
        warn(message)

    # A live display and questions would write over each other.
    with narrator(live=False) as narrate, contextlib.redirect_stdout(io.StringIO()):
        report = StepReporter(narrate)
        asked = ask_names if can_ask else None
        return make_dataset(request, roots, report, geometry=geometry, note=told, warn=warned, ask=asked)


def make(
    task: str,
    roots: Roots,
    plans: str,
    configuration: str,
    *,
    geometry: Literal["header", "voxel"] = "header",
    plans_from: str | None = None,
) -> Prepared:
    """Prepare a task with progress on stderr; nnU-Net's prints are kept off stdout, which is for our result."""
    with narrator(live=sys.stderr.isatty()) as narrate, contextlib.redirect_stdout(io.StringIO()):
        report = StepReporter(narrate)
        return prepare_task(
            task, roots, plans, configuration, report, geometry=geometry, warn=warn, plans_from=plans_from
        )
