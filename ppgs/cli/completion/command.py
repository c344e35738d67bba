"""`ppgs completion`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from ppgs.cli import help
from ppgs.cli.output import note


class Action(StrEnum):
    """Action on the completion script."""

    show = "show"
    install = "install"


class Shell(StrEnum):
    """Shells with a completion script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def register(app: typer.Typer) -> None:
    def completion(
        action: Annotated[Action, typer.Argument(metavar="show|install", help="Print the script, or install it.")],
        shell: Annotated[
            Shell | None,
            typer.Argument(metavar="bash|zsh|fish", help="Default: your login shell.", show_default=False),
        ] = None,
    ) -> None:
        """Complete commands, options, tasks, runs and schedules by TAB."""
        from ppgs.cli.app import app as whole
        from ppgs.cli.completion.scripts import commands, script
        from ppgs.commands.completion import install, login_shell, place_of

        name = login_shell(os.environ, tuple(Shell)) if shell is None else shell.value
        text = script(name, commands(whole))
        if action is Action.show:
            sys.stdout.write(text)
            return
        for line in install(place_of(name, os.environ), text):
            note(line)
        note(f"new {name} shells complete ppgs")

    examples = ("ppgs completion install", "ppgs completion show zsh > _ppgs")
    help.add(app, "completion", completion, "Setup", examples)
