"""Options that several commands share, defined once; those of a training are the fields of its request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppgs.runs.request import TrainingRequest, options_of


def of_request(name: str) -> Any:
    """Return the command-line option of a field of `TrainingRequest`: its name, limits and help."""
    field, spelling = TrainingRequest.model_fields[name], options_of(TrainingRequest)[name]
    flag = f"--{name.replace('_', '-')}"
    limits = {key: getattr(m, key) for m in field.metadata for key in ("ge", "le") if hasattr(m, key)}
    return typer.Option(
        # A switch that is off by default needs no spelling that switches it off.
        f"{flag}/--no-{flag.removeprefix('--')}" if field.default is True else flag,
        metavar=spelling.metavar,
        help=field.description,
        show_default="default" not in str(field.description).lower(),
        rich_help_panel=spelling.panel.value,
        min=limits.get("ge"),
        max=limits.get("le"),
    )


def with_request(command: Callable[..., int]) -> Callable[..., int]:
    """Replace the parameter `asked` (a `TrainingRequest` without task) of a command by one option per field."""
    # The schedule is the purpose of this program.
    names = sorted(options_of(TrainingRequest), key=lambda name: name != "schedule")

    @functools.wraps(command)
    def run(**given: Any) -> int:
        asked = TrainingRequest.of(task="", **{name: given.pop(name) for name in names})
        return command(asked=asked, **given)

    def option(name: str) -> inspect.Parameter:
        field = TrainingRequest.model_fields[name]
        annotation = Annotated[field.annotation, of_request(name)]  # type: ignore[name-defined]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += map(option, names) if parameter.name == "asked" else [parameter]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


_TASK = typer.Argument(
    metavar="TASK",
    help="'demo', a Decathlon folder (.../Task04_Hippocampus), or an nnU-Net dataset id or name.",
    show_default=False,
)
OptionalTask = Annotated[str | None, _TASK]
Tasks = Annotated[list[str] | None, _TASK]
Schedule = Annotated[str | None, of_request("schedule")]
Configuration = Annotated[str, of_request("configuration")]
PlansName = Annotated[str, of_request("plans")]
Epochs = Annotated[int | None, of_request("epochs")]
Iterations = Annotated[int | None, of_request("iterations")]
BatchSize = Annotated[int | None, of_request("batch_size")]
Mirroring = Annotated[str | None, of_request("mirroring")]
FromStage = Annotated[int | None, of_request("from_stage")]
StartPatch = Annotated[str | None, of_request("start_patch")]
Pretrained = Annotated[str | None, of_request("pretrained")]
Geometry = Annotated[Literal["header", "voxel"], of_request("geometry")]
Device = Annotated[str, of_request("device")]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Contains nnUNet_raw, nnUNet_preprocessed and nnUNet_results. Default: nnU-Net's environment variables "
        "if all are set, else ./ppgs_data.",
        rich_help_panel="Machine",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Output")]
Workers = Annotated[int | None, of_request("workers")]
GpuMemory = Annotated[str | None, of_request("gpu_memory")]
Fit = Annotated[bool, of_request("fit")]
Gpus = Annotated[int | None, of_request("gpus")]
Restarts = Annotated[int | None, of_request("restarts")]
LoaderTimeout = Annotated[float | None, of_request("loader_timeout")]
Detach = Annotated[bool, typer.Option("--detach", help="Train in the background.", rich_help_panel="Run")]
NoTui = Annotated[bool, typer.Option("--no-tui", help="Plain lines, no live display.", rich_help_panel="Run")]
SkipNonfinite = Annotated[bool, of_request("skip_nonfinite")]
_RUN = typer.Argument(metavar="RUN", help="A run's name in 'ppgs runs', or its folder.", show_default=False)
Run = Annotated[str, _RUN]
OptionalRun = Annotated[str | None, _RUN]
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Names in 'ppgs runs', or folders; a model's folder means all its folds.",
        show_default=False,
    ),
]
SlurmDryRun = Annotated[
    bool, typer.Option("--slurm-dry-run", help="Print the script, submit nothing.", rich_help_panel="Slurm")
]
