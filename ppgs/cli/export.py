"""`ppgs export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ppgs.cli import help, options
from ppgs.cli.output import note, out, print_json
from ppgs.commands.export import CARD, choose_models, describe
from ppgs.commands.export import export as write_zip


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs export demo-efficiency-fold0 -o demo.zip",
        "ppgs export Hippocampus-efficiency --fold 0-4 -o hippocampus.zip",
    )
    help.add(app, "export", export, "Use", examples)


def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Names in 'ppgs runs' (without '-foldK': all folds), or folders; a model's folder: all its folds.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE.zip", help="The zip to write.", show_default=False, rich_help_panel="Output"
        ),
    ],
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="Folds to export: 0,2 or 0-4. Default: those of the runs.", rich_help_panel="Model"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.zip.", rich_help_panel="Output")] = False,
    root: options.Root = None,
    as_json: options.Json = False,
) -> None:
    """Write finished runs as nnU-Net's own model zip, with a model card.

    The zip names nnU-Net's own trainer and does not need ppgs: nnUNetv2_install_pretrained_model_from_zip installs it,
    nnUNetv2_predict uses it.
    """
    models, notes = choose_models(runs, fold, root, os.environ)
    for line in notes:
        note(line)
    write_zip(models, target, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "file": str(target),
                "bytes": target.stat().st_size,
                "models": [
                    {"folder": m.place, "folds": m.folds, "card": f"{m.place}/{CARD}", "source": str(m.source)}
                    for m in models
                ],
            }
        )
        return
    out.print(f"{target}: {'; '.join(map(describe, models))}", markup=False)
    note(f"install it anywhere with: nnUNetv2_install_pretrained_model_from_zip {target}")
