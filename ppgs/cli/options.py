"""Options that several commands share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

TaskArgument = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="'demo', a Decathlon folder (.../Task04_Hippocampus), or an nnU-Net dataset id or name.",
        show_default=False,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEDULE|FILE",
        help="efficiency (default), performance, constant, random, pgps-2024, pgps-plus-2024, or a YAML file.",
        rich_help_panel="Curriculum",
    ),
]
Configuration = Annotated[
    str, typer.Option(metavar="CONFIGURATION", help="nnU-Net configuration.", rich_help_panel="Task")
]
PlansName = Annotated[str, typer.Option("--plans", metavar="PLANS", help="nnU-Net plans.", rich_help_panel="Task")]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Epochs in all (nnU-Net: 1000).", rich_help_panel="Curriculum"),
]
Iterations = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Iterations per epoch (nnU-Net: 250).", rich_help_panel="Curriculum"),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Overrides the plan's batch size.", rich_help_panel="Curriculum"),
]
Mirroring = Annotated[
    str | None,
    typer.Option(
        metavar="on|off|AXES",
        help="Axes that training and inference mirror, such as 0,1. Off for classes told apart by side.",
        rich_help_panel="Curriculum",
    ),
]
Geometry = Annotated[
    Literal["header", "voxel"],
    typer.Option(
        metavar="header|voxel",
        help="How voxels of channels and labels correspond: by their headers, which must agree (default), or by the "
        "order in which they are stored, as nnU-Net takes them.",
        rich_help_panel="Task",
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cuda|cpu|mps", help="Where to compute.", rich_help_panel="Machine")]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results. Default: nnU-Net's environment variables "
        "if all are set, else ./ppgs_data.",
        rich_help_panel="Machine",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Output")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=512, metavar="N", help="Loader processes; default: what suits.", rich_help_panel="Machine"),
]
GpuMemory = Annotated[
    str | None,
    typer.Option(
        metavar="auto|24GiB|CARD",
        help="Memory to fit in: the GPU here, a size, or a card (rtx3090, a100-40gb, h100).",
        rich_help_panel="Machine",
    ),
]
Fit = Annotated[
    bool,
    typer.Option("--fit", help="Change stages that do not fit, mildest remedy first.", rich_help_panel="Machine"),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Train on N GPUs of this machine together, the batch shared out (with --device cpu: N processes).",
        rich_help_panel="Machine",
    ),
]
Restarts = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1000,
        metavar="N",
        help="With --gpus: when a process dies, start all again from the last checkpoint, so often.",
        rich_help_panel="Machine",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Train in the background.", rich_help_panel="Run")]
NoTui = Annotated[bool, typer.Option("--no-tui", help="Plain lines, no live display.", rich_help_panel="Run")]
SkipNonfinite = Annotated[
    bool,
    typer.Option(
        "--skip-nonfinite",
        help="Leave out batches whose loss or gradients are NaN or infinite, with a warning; else such a batch stops "
        "the training.",
        rich_help_panel="Run",
    ),
]
OptionalRun = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's name in 'ppgs runs', or its folder.", show_default=False)
]
