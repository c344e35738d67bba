"""`ppgs validate`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ppgs.cli import help, options
from ppgs.cli.output import note, out, print_json, show_error
from ppgs.cli.progress import narrator
from ppgs.cli.train.follow import signals_to
from ppgs.commands.resume import choose_run
from ppgs.commands.validate import ValidationChild, check_validatable
from ppgs.errors import ExitCode
from ppgs.formatting import dice_text
from ppgs.runs.events import read_events
from ppgs.runs.folder import Checkpoint
from ppgs.runs.manifest import read_manifest
from ppgs.runs.state import RunState


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs validate demo-efficiency-fold0",
        "ppgs validate demo-efficiency-fold0 --checkpoint best",
        "ppgs validate demo-efficiency-fold0 --npz",
    )
    help.add(app, "validate", validate, "Use", examples)


def validate(
    run: options.Run,
    checkpoint: Annotated[
        Checkpoint,
        typer.Option(
            metavar="final|best|latest",
            help="Checkpoint to validate with; best and latest get separate folders in the run.",
        ),
    ] = "final",
    npz: Annotated[
        bool,
        typer.Option("--npz", help="Keep the probabilities, for ensembles; always kept if the run was trained so."),
    ] = False,
    root: options.Root = None,
    no_tui: options.NoTui = False,
    as_json: options.Json = False,
) -> int:
    """Repeat a run's final validation with its final, best or latest checkpoint.

    The run keeps its status. Earlier results are replaced only by complete new ones, and those of the final checkpoint
    only by the final checkpoint's.
    """
    chosen, roots = choose_run(run, root, os.environ)
    check_validatable(chosen, checkpoint)
    name = read_manifest(chosen).name
    state = RunState().apply_all(read_events(chosen.events))
    child = ValidationChild(chosen, roots, checkpoint, npz=npz)
    live = not no_tui and not as_json and sys.stderr.isatty()
    with signals_to(child.stop), child.saved_on_error(), narrator(live=live) as narrate:
        for records in child.follow():
            child.note(records)
            state.apply_all(records)
            narrate.update(state, records)
    child.raise_failure()
    if child.process.returncode == ExitCode.STOPPED:
        if (stop := child.stopped_by()) is not None:
            show_error(stop)
        note(f"{child.result.get('reason') or 'stopped'}; the earlier results are as they were")
        return ExitCode.STOPPED
    dice, mean = child.result.get("dice") or {}, child.result.get("mean")
    folder = chosen.validation_by(checkpoint)
    if as_json:
        print_json(
            {
                "name": name,
                "path": str(chosen.path),
                "checkpoint": checkpoint,
                "validation": str(folder),
                "mean_dice": mean,
                "dice_per_class": dice,
            }
        )
        return ExitCode.DONE
    out.print(f"{name}: validation {dice_text(mean, dice, f' by the {checkpoint} checkpoint')}", markup=False)
    note(f"written to {folder}")
    return ExitCode.DONE
