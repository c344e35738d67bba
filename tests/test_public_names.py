"""Names that users rely on: they may become more, and none may go or change."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer

import ppgs
from ppgs.cli.app import app
from ppgs.errors import ExitCode

NAMES = {
    "Curriculum": "",
    "Plan": "",
    "PpgsError": "",
    "Run": "",
    "Schedule": "",
    "Stage": "",
    "__version__": "",
    "find_run": "run root",
    "find_runs": "root",
    "plan_schedule": "task schedule configuration plans epochs iterations batch_size gpu_memory device fit root",
    "predict": "run images output folds root options",
    "read_events": "run",
    "resume": "run root on_event",
    "train": "task schedule fold root on_event options",
}
OPTIONS = {
    "plan-schedule": (
        "--schedule --configuration --plans --epochs --iterations --batch-size --mirroring --budget "
        "--gpu-memory --fit --fill --device --gpus --calibrate --root --against -o --output --plot --json"
    ),
    "prepare": "--configuration --plans --download --mirror --root --json",
    "doctor": "--root --json",
    "train": (
        "--schedule --configuration --plans --fold --epochs --iterations --batch-size --mirroring --seed "
        "--device --gpus --restarts --workers --loader-timeout --skip-nonfinite --precision --augmentation "
        "--gpu-memory --fit --energy --no-energy --previous-stage --npz --root --name --overwrite --jobs "
        "--slurm --slurm-dry-run --yes -y --detach --no-tui --json --geometry --budget --until --trainer --patience "
        "--log --deterministic --channels-last"
    ),
    "resume": "--epochs --skip-nonfinite --as-prepared --root --gpus --restarts --detach --no-tui --json",
    "stop": "--root --json",
    "monitor": "--refresh --root",
    "runs": "--sweeps --root --json",
    "validate": "--checkpoint --npz --root --no-tui --json",
    "predict": (
        "-i --input -o --output --fold --checkpoint --device --mirroring --no-mirroring --step-size "
        "--previous-stage --save-probabilities --continue --preprocess-workers --export-workers --root --json "
        "--recursive --part --no-continue --statistics --overlay --references --gpus --slurm --parts --slurm-dry-run"
    ),
    "export": "-o --output --fold --overwrite --root --json",
    "compare": (
        "--baseline --only --references --images --margin --surface --no-surface --tolerance --country "
        "--carbon-intensity --keep-going --workers --json --csv --latex --markdown --html --figures --root"
    ),
    "completion": "",
    "runs export-logs": "--to -o --output --root",
}
EXIT_CODES = {"DONE": 0, "UNFORESEEN": 1, "BAD_INPUT": 2, "DOES_NOT_FIT": 3, "UNUSABLE_RUN": 4, "STOPPED": 75}


@pytest.mark.parametrize("name", NAMES)
def test_the_python_api(name: str) -> None:
    assert name in vars(ppgs)["__all__"]
    thing = getattr(ppgs, name)
    if inspect.isfunction(thing):
        parameters = list(inspect.signature(thing).parameters.values())
        pinned = NAMES[name].split()
        assert set(pinned) <= {parameter.name for parameter in parameters}
        # What may be given by its place keeps it.
        placed = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert all(ours == theirs for ours, theirs in zip(placed, pinned, strict=False))


@pytest.mark.parametrize("name", OPTIONS)
def test_commands_and_their_options(name: str) -> None:
    command: Any = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    there = {spelling for parameter in command.params for spelling in (*parameter.opts, *parameter.secondary_opts)}
    assert set(OPTIONS[name].split()) <= there


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in ExitCode} == EXIT_CODES
