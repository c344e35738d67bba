"""`ppgs predict`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Annotated

import typer

from ppgs.cli import ask, help, options
from ppgs.cli.counter import Counter
from ppgs.cli.output import note, show_script
from ppgs.cli.predict_result import name_latest, name_skipped, name_unreferenced, print_record, tell
from ppgs.cli.predict_slurm import Jobs
from ppgs.commands.predict import segment
from ppgs.commands.predict_plan import PredictRequest, choose_folds, plan_prediction
from ppgs.commands.runs import list_runs
from ppgs.errors import BadInput, NoSuchRun
from ppgs.runs.registry import FIRST_RUN
from ppgs.tasks import Roots


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs predict demo-efficiency-fold0 -i images -o segmentations",
        "ppgs predict Hippocampus-efficiency --fold 0-4 -i scan.nii.gz -o seg.nii.gz",
        "ppgs predict Spleen-efficiency -i scans --recursive -o out --gpus 4",
    )
    help.add(app, "predict", predict, "Use", examples)


def predict(
    source: Annotated[
        Path,
        typer.Option(
            "-i",
            "--input",
            metavar="IN",
            help="A folder of images, one image, a pattern in quotes ('scans/*/ct.nii.gz'), or a CSV or JSON list.",
            show_default=False,
            rich_help_panel="Images",
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A folder, or a file for one image.",
            show_default=False,
            rich_help_panel="Images",
        ),
    ],
    run: options.OptionalRun = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            help="Also search the folders below IN; OUT keeps their structure.",
            rich_help_panel="Images",
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Segment one of N parts of the images (2/8): every N-th by name, from the K-th on.",
            rich_help_panel="Images",
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K",
            help="Folds to ensemble: 0,2 or 0-4. Default: the run's own, or all finished ones of a model.",
            rich_help_panel="Model",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="final|best|latest", help="Default: final, else latest.", rich_help_panel="Model"),
    ] = None,
    device: options.Device = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="GPUs of this machine, each with a process and a part of the images (with --device cpu: N processes).",
            show_default=False,
            rich_help_panel="Machine",
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Submit the parts as Slurm jobs: partition, time, cpus, mem, parallel, and any option of sbatch.",
            rich_help_panel="Slurm",
        ),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="Slurm jobs to share the images. Default: one per image, at most 8.",
            show_default=False,
            rich_help_panel="Slurm",
        ),
    ] = None,
    slurm_dry_run: options.SlurmDryRun = False,
    mirroring: Annotated[
        bool, typer.Option(help="Test-time mirroring, as nnU-Net does.", rich_help_panel="Inference")
    ] = True,
    step_size: Annotated[
        float,
        typer.Option(
            min=0.1, max=1.0, metavar="S", help="Distance of tiles relative to the patch.", rich_help_panel="Inference"
        ),
    ] = 0.5,
    preprocess_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that read and preprocess images. Default: as CPUs and memory allow.",
            rich_help_panel="Inference",
        ),
    ] = None,
    export_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that resample and write segmentations. Default: as CPUs and memory allow.",
            rich_help_panel="Inference",
        ),
    ] = None,
    previous_stage: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|RUN",
            help="First-stage run or segmentations, for a second stage. Default: the run that it was trained with.",
            rich_help_panel="Model",
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--save-probabilities",
            help="Also write what nnUNetv2_ensemble needs: .npz files, plans.json and dataset.json.",
            rich_help_panel="Output",
        ),
    ] = False,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--continue/--no-continue",
            help="Skip images that are segmented already. Default: with --part, --gpus and --slurm.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics", help="Write voxels and volumes of each class and case as CSV.", rich_help_panel="Output"
        ),
    ] = False,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="Write a picture of each case: the slice with most foreground.",
            rich_help_panel="Output",
        ),
    ] = False,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Reference segmentations, named like those in OUT; prints the Dice of each case.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files in OUT that ppgs did not write. Inputs are never replaced.",
            rich_help_panel="Output",
        ),
    ] = False,
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Segment every image of a folder (or one file) with a trained run.

    Images may be named as in nnU-Net (name_0000.nii.gz, one file per channel) or the Decathlon. Files that are not
    segmented are listed with the reason. Existing files in OUT are replaced only if ppgs wrote them.

    A list has one row per case: its file as 'image', or channels as 'image_0000', 'image_0001', ..., and optionally
    another name as 'output'.
    """
    if run is None:
        run = _choose(Roots.choose(root, os.environ), as_json=as_json)
    as_jobs = slurm is not None or slurm_dry_run
    if parts is not None and not as_jobs:
        raise BadInput("--parts is the number of Slurm jobs", "--parts", "give --slurm too, or --part K/N, or --gpus N")
    shared = part is not None or gpus is not None or as_jobs
    asked = PredictRequest(
        run=run,
        source=source,
        target=target,
        folds=fold,
        checkpoint=checkpoint,
        device=device,
        mirroring=mirroring,
        step_size=step_size,
        overwrite=not (shared if keep is None else keep),
        previous_stage=previous_stage,
        probabilities=probabilities,
        replace_foreign=overwrite,
        preprocess_workers=preprocess_workers,
        export_workers=export_workers,
        recursive=recursive,
        part=part,
        statistics=statistics,
        overlay=overlay,
        references=references,
        gpus=gpus,
    )
    roots = Roots.choose(root, os.environ)
    asked, runs = choose_folds(asked, roots, note)
    planned = plan_prediction(asked, runs, roots)
    name_skipped(planned.skipped)
    name_latest(planned.checkpoints)
    name_unreferenced(planned.results.without_reference)
    if there := len(planned.cases) - len(planned.outputs):
        note(f"{there} of {len(planned.cases)} images are segmented already (--no-continue segments them again)")
    if as_jobs:
        jobs = Jobs.plan(asked, planned, slurm or [], parts)
        if slurm_dry_run:
            show_script(jobs.script(roots), as_json=as_json)
            return
        if jobs.submit(roots, as_json=as_json):
            return
    with Counter(every=10) as counter:
        report = counter.step("segmenting", "segmented {}", total=len(planned.outputs), visible=bool(planned.outputs))
        examined = counter.step("examining", "examined {}", visible=False)
        with contextlib.redirect_stdout(io.StringIO()):
            predicted = segment(asked, planned, runs, roots, report, note, examined)
    if as_json:
        print_record(run, runs, planned, predicted)
    else:
        tell(predicted, target)
    if predicted.error is not None:
        raise predicted.error


def _choose(roots: Roots, *, as_json: bool) -> str:
    """Return the run with a checkpoint that a person picks; raises `BadInput` without a terminal."""
    if as_json or not ask.somebody():
        raise ask.need_run("predict", roots, "give the one to segment with: ppgs predict RUN -i IN -o OUT")
    rows = [row for row in list_runs(roots.results) if any(row.path.glob("checkpoint_*.pth"))]
    if not rows:
        raise NoSuchRun("there is no run with a checkpoint to predict with", roots.results, FIRST_RUN)
    return ask.choose_runs(rows, "run to segment with")[0]
