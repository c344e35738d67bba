"""`ppgs doctor`."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Annotated

import typer
from rich.markup import escape

from ppgs.cli import help, options
from ppgs.cli.counter import Counter
from ppgs.cli.output import out, print_json
from ppgs.commands.doctor import Diagnosis, diagnose
from ppgs.doctor.findings import Finding
from ppgs.errors import ExitCode
from ppgs.tasks import Roots

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs doctor",
        "ppgs doctor Task04_Hippocampus",
    )
    help.add(app, "doctor", doctor, "Plan", examples)


def doctor(
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="Check this task's images and labels too.", show_default=False),
    ] = None,
    geometry: options.Geometry = "header",
    root: options.Root = None,
    as_json: options.Json = False,
) -> int:
    """Check this machine and, with TASK, its data; every finding has a remedy.

    Exit code 0 without errors, 2 with errors. Warnings do not prevent a training.
    """
    roots = Roots.choose(root, os.environ)

    # nnU-Net's readers print.
    with Counter(every=50) as counter, contextlib.redirect_stdout(io.StringIO()):
        report = counter.step("checking", "read {} cases")
        found = diagnose(task, roots, report, geometry=geometry)
    if as_json:
        print_json(
            {
                "errors": found.errors,
                "warnings": found.warnings,
                "machine": [f.to_record() for f in found.machine],
                "task": None if found.task is None else [f.to_record() for f in found.task],
            }
        )
    else:
        _tell(found, task)
    return int(ExitCode.BAD_INPUT if found.errors else ExitCode.DONE)


def _tell(found: Diagnosis, task: str | None) -> None:
    for heading, findings in (("machine", found.machine), (task, found.task)):
        if findings:
            out.print(f"[bold]{escape(str(heading))}[/]")
            for finding in findings:
                _tell_one(finding)
    out.print(f"{found.errors} errors, {found.warnings} warnings")


def _tell_one(finding: Finding) -> None:
    style = _STYLES[finding.level]
    out.print(f"  [{style}]{finding.level:<8}[/]{finding.check:<20} {escape(finding.what)}")
    if finding.where:
        out.print(f"{'':10}where:  {escape(finding.where)}")
    if finding.remedy:
        out.print(f"{'':10}remedy: {escape(finding.remedy)}")
