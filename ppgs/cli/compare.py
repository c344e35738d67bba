"""`ppgs compare`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppgs.cli import ask, help, options, output
from ppgs.errors import BadInput, NoSuchRun
from ppgs.formatting import counted
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.compare.results import Comparison


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs compare demo-constant demo-efficiency --html report.html",
        "ppgs compare nnUNet_results/Dataset004_Hippocampus",
        "ppgs compare nnUNet_results --only nnUNetPlans --only 'nnUNetResEnc*'",
        "ppgs compare predictions_a predictions_b --references labelsTs",
    )
    help.add(app, "compare", _compare, "Use", examples)


def _compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs, models (a name without -foldK), result folders or folders of predictions.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Baseline: a training, run or part of its name. Default: first.",
            rich_help_panel="Runs",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Keep trainings whose name, or a part between '__', matches. Repeatable.",
            rich_help_panel="Runs",
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Reference segmentations of the predictions.", rich_help_panel="Runs"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images for the pictures. Default: nnUNet_raw's imagesTr.", rich_help_panel="Runs"
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(metavar="DICE", help="Non-inferiority margin.", rich_help_panel="Statistics"),
    ] = 0.005,
    surface: Annotated[
        bool,
        typer.Option(
            "--surface/--no-surface",
            help="Surface Dice and HD95 of available segmentations (slow for large volumes).",
            rich_help_panel="Statistics",
        ),
    ] = True,
    tolerance: Annotated[
        float, typer.Option(metavar="MM", help="Tolerance of the surface Dice.", rich_help_panel="Statistics")
    ] = 2.0,
    country: Annotated[
        str | None,
        typer.Option(metavar="ISO", help="Compute CO2 with a country's electricity (DEU).", rich_help_panel="Cost"),
    ] = None,
    carbon_intensity: Annotated[
        float | None,
        typer.Option(metavar="G", help="Compute CO2 with this intensity in g/kWh.", rich_help_panel="Cost"),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="Compare what is comparable and report what was left out.", rich_help_panel="Runs"
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes for the surface distances.", rich_help_panel="Machine"),
    ] = None,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, unrounded.", rich_help_panel="Output")] = False,
    as_latex: Annotated[
        bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).", rich_help_panel="Output")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table.", rich_help_panel="Output")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a self-contained report.", rich_help_panel="Output"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the figures as SVG, PDF and PNG.", rich_help_panel="Output"),
    ] = None,
    root: options.Root = None,
) -> None:
    """Compare two or more trainings: which is better, how certain that is, and what it cost.

    A RUN is the name of a run, or a folder: of a fold, of a model (TRAINER__PLANS__CONFIGURATION, any trainer, all its
    folds), of a dataset (all its models), nnUNet_results (all datasets), or of predictions (with --references, or with
    nnU-Net's summary.json in it). Runs are compared within their task; trainings of the same name belong together over
    tasks. The first one is the baseline.

    Damaged or missing results are named and end with exit code 2; --keep-going compares the rest.
    """
    from ppgs.commands.compare import CompareRequest, compare

    asked = {"--json": as_json, "--csv": as_csv, "--latex": as_latex, "--markdown": as_markdown}
    formats = [name for name, on in asked.items() if on]
    if len(formats) > 1:
        raise BadInput(f"stdout can hold one format, not {' and '.join(formats)}", "compare", f"keep {formats[0]}")
    roots = Roots.choose(root, os.environ)
    if not runs:
        runs = _choose(roots, can_ask=not formats)
    request = CompareRequest(
        runs=tuple(runs),
        roots=roots,
        baseline=baseline,
        only=tuple(only or ()),
        references=references,
        images=images,
        margin=margin,
        tolerance_mm=tolerance,
        surface=surface,
        country=country,
        grams_per_kwh=carbon_intensity,
        keep_going=keep_going,
        html=html,
        figures=figures,
        workers=workers,
    )
    result = compare(request, output.note)
    for note in (*(f"left out: {text}" for text in result.left_out), *result.notes):
        output.warn(note)
    _print(result, formats[0] if formats else None)


def _choose(roots: Roots, *, can_ask: bool) -> list[str]:
    """Return the finished runs that a person picks, the baseline first; raises `BadInput` without a terminal."""
    from ppgs.commands.runs import list_runs

    if not can_ask or not ask.somebody():
        raise ask.need_run("compare", roots, "give two or more, the baseline first: ppgs compare RUN RUN")
    rows = [row for row in list_runs(roots.results) if row.status == "finished"]
    if len(rows) < 2:
        raise NoSuchRun(
            f"{counted(len(rows), 'finished run')}, comparing takes two",
            roots.results,
            "train another one, for instance the baseline: ppgs train TASK --schedule constant; or give result folders",
        )
    return ask.choose_runs(rows, "runs to compare, the baseline first", several=True, default=None)


def _print(comparison: Comparison, chosen: str | None) -> None:
    if chosen == "--json":
        from ppgs.compare.reporting.json_data import to_json

        output.print_json(to_json(comparison))
    elif chosen is None:
        from ppgs.cli.compare_table import show

        show(comparison)
    else:
        from ppgs.compare.reporting import tables

        writers = {"--csv": tables.to_csv, "--latex": tables.to_latex, "--markdown": tables.to_markdown}
        sys.stdout.write(writers[chosen](comparison))
