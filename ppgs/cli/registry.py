"""The commands by name. A command's module is imported when the command runs: `ppgs --help` needs none of them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer


class Listed(NamedTuple):
    """Entry of `ppgs --help`: a command's group and the first line of its function's docstring."""

    group: str
    line: str
    module: str = ""  # below `ppgs.cli`; where empty, it has the command's name


# In the order in which they are shown. Of a name of two words, the first is a command too.
COMMANDS = {
    "plan-schedule": Listed(
        "Plan", "Estimate a schedule's cost in advance: memory, FLOPs, time and energy of every stage."
    ),
    "prepare": Listed("Plan", "Convert, check, plan and preprocess a task without training it."),
    "doctor": Listed("Plan", "Check this machine and, with TASK, its data; every finding has a remedy."),
    "train": Listed("Train", "Prepare what is missing, train under a schedule, and validate.", "train.command"),
    "resume": Listed("Train", "Continue a stopped or killed run exactly where its last checkpoint left it."),
    "stop": Listed("Train", "Stop trainings on this machine with a checkpoint, and wait until they have."),
    "monitor": Listed("Train", "Watch runs, live or finished, in the terminal."),
    "runs": Listed("Train", "List all runs and sweeps with their status."),
    "validate": Listed("Use", "Repeat a run's final validation with its final, best or latest checkpoint."),
    "predict": Listed("Use", "Segment every image of a folder (or one file) with a trained run."),
    "export": Listed("Use", "Write finished runs as nnU-Net's own model zip, with a model card."),
    "runs export-logs": Listed("Use", "Send a run's curves to TensorBoard, W&B or MLflow.", "export_logs"),
    "compare": Listed("Use", "Compare two or more trainings: which is better, how certain that is, and what it cost."),
    "completion": Listed(
        "Setup", "Complete commands, options, tasks, runs and schedules by TAB.", "completion.command"
    ),
}


class Commands(MutableMapping[str, Any]):
    """Click's commands by name, each built from its module on first use."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            if name not in COMMANDS:
                raise KeyError(name)
            application = typer.Typer(add_completion=False, rich_markup_mode=None)
            module = COMMANDS[name].module or name.replace("-", "_")
            import_module(f"ppgs.cli.{module}").register(application)
            self._built[name] = typer.main.get_command(application)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self._built

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*COMMANDS, *self._built)))

    def __len__(self) -> int:
        return len(list(iter(self)))
