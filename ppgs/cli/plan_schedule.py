"""`ppgs plan-schedule`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ppgs.cli import help, options, output
from ppgs.cli.plan_table import show
from ppgs.commands.plan_schedule import PlanRequest, lacks_demo, plan_schedule
from ppgs.errors import BadInput, ExitCode
from ppgs.outputs import Kept, check_names, check_outputs, remember
from ppgs.runs.atomic import write_text
from ppgs.schedule import dump
from ppgs.tasks import Roots

PlanTask = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="'demo', a Decathlon folder, an nnU-Net dataset id or name, an nnUNetPlans.json, or a Decathlon "
        "task whose default plan ships with ppgs (Task01_BrainTumour).",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    examples = (
        "ppgs plan-schedule Task01_BrainTumour --gpu-memory rtx3090",
        "ppgs plan-schedule demo --schedule performance -o performance.yaml",
        "ppgs plan-schedule Task03_Liver --gpu-memory 11GiB --fit -o liver.yaml",
        "ppgs plan-schedule demo --calibrate --device cpu",
    )
    help.add(app, "plan-schedule", plan, "Plan", examples)


def plan(
    task: PlanTask,
    schedule: options.Schedule = None,
    configuration: options.Configuration = "3d_fullres",
    plans: options.PlansName = "nnUNetPlans",
    epochs: options.Epochs = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    mirroring: options.Mirroring = None,
    from_stage: options.FromStage = None,
    start_patch: options.StartPatch = None,
    pretrained: options.Pretrained = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="12h|50%|2kWh",
            help="Propose the schedule that meets it; % is of constant patch size.",
            rich_help_panel="Curriculum",
        ),
    ] = None,
    gpu_memory: options.GpuMemory = None,
    fit: options.Fit = False,
    fill: Annotated[
        bool,
        typer.Option("--fill", help="performance: batches as large as the memory allows.", rich_help_panel="Machine"),
    ] = False,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure real steps on this machine (under a minute) and use them from then on.",
            rich_help_panel="Machine",
        ),
    ] = False,
    root: options.Root = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Show what a run took beside the estimate.", rich_help_panel="Output"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.yaml", help="Write the schedule.", rich_help_panel="Output"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw patch volume and memory over epochs.", rich_help_panel="Output"),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Estimate a schedule's cost in advance: memory, FLOPs, time and energy of every stage.

    Needs no images and no GPU, and trains nothing. Exit code 3 means that the schedule does not fit the memory.
    """
    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise BadInput(f"'{plot.name}' is no picture", "--plot", "name it .svg, .png or .pdf")
    roots = Roots.choose(root, os.environ)
    request = PlanRequest(
        task=task,
        schedule=schedule,
        configuration=configuration,
        plans=plans,
        epochs=epochs,
        iterations=iterations,
        batch_size=batch_size,
        mirroring=mirroring,
        from_stage=from_stage,
        start_patch=start_patch,
        pretrained=pretrained,
        gpu_memory=gpu_memory,
        device=device,
        gpus=gpus,
        fit=fit,
        fill=fill,
        budget=budget,
        against=against,
        calibrate=calibrate,
    )
    given = [
        Kept(Path(text), f"the input {text}") for text in (schedule, task, pretrained) if text and Path(text).is_file()
    ]
    written = [path for path in (out, plot) if path is not None]
    check_names(written, remedy="give two different paths")
    check_outputs(written, given, remedy="give another path, or remove the file first")
    if lacks_demo(task, plans, roots):
        from ppgs.cli.prepare import make

        make(task, roots, plans, configuration)
    result = plan_schedule(request, roots, output.note)
    if as_json:
        output.print_json(result.as_json())
    else:
        show(result, output.out, plain=not output.out.is_terminal)
    result.check_fits()
    if out is not None:
        _write(out, dump(result.schedule))
        remember(out)
        output.note(f"wrote {out}")
    if plot is not None:
        from ppgs.commands.plan_figure import draw

        draw(result.estimate, f"{result.subject.task}, {result.schedule.name}", plot)
        remember(plot)
        output.note(f"drew {plot}")
    return int(ExitCode.DONE)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as problem:
        raise BadInput(f"cannot be written: {problem.strerror or problem}", path) from None
