"""The text of `--help`: plain, in groups, with examples to copy.

Typer draws boxes around options, which break when copied and leave half of a narrow terminal to borders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ppgs.cli.output import out
from ppgs.cli.registry import COMMANDS, Commands

_WIDEST = 34


def add(app: typer.Typer, name: str, function: Callable[..., Any], group: str, examples: Sequence[str]) -> None:
    """Add a command, with examples below its options."""
    lines = "".join(f"\n  {example}" for example in examples)
    app.command(name, cls=Command, rich_help_panel=group, epilog=f"\b\nExamples:{lines}")(function)


def _heading(text: str) -> str:
    """Return the heading in bold; Click drops the style where the output is no terminal."""
    return text if out.no_color or out.is_dumb_terminal else typer.style(text, bold=True)


def _write_groups(groups: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    """Write sections of names and meanings, aligned in the same columns."""
    longest = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
    for title, rows in groups.items():
        formatter.write_paragraph()
        formatter.write(f"{_heading(title)}\n")
        with formatter.indentation():
            # Click gives a column the width of its longest name: the first row lends it to every group.
            width = min(longest, _WIDEST)
            formatter.write_dl([(f"{name:<{width}}", text) for name, text in rows], col_max=_WIDEST)


def _metavar(argument: Any) -> str:
    """Return `RUN`, `[RUN]`, `RUN...` or `[RUN]...`."""
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name + ("..." if argument.nargs == -1 else "")


def _record(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    """Return a parameter's name and help, or None for a hidden one."""
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    # Click writes ranges as `0<=x<=512`; a value out of range is reported when given.
    text = re.sub(r"(; )?([\d.]+<=?)?x([<>]=?[\d.]+)?(?=\]$)", "", record[1]).removesuffix("[]").rstrip()
    if parameter.param_type_name == "argument":
        return _metavar(parameter), text.removesuffix("[required]").rstrip()
    return record[0], text


def parameter_groups(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the names and meanings of a command's parameters by the title under which `--help` lists them."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for kind, default in (("argument", "Arguments"), ("option", "Options")):
        for parameter in command.get_params(ctx):
            record = _record(parameter, ctx) if parameter.param_type_name == kind else None
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None)
                groups.setdefault(panel if isinstance(panel, str) else default, []).append(record)
    # The options of every command come last.
    return groups | {title: groups.pop(title) for title in ("Options",) if title in groups}


class Command(TyperCommand):
    """A command whose options are listed in the groups that they name as `rich_help_panel`."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        arguments = [_metavar(p) for p in self.get_params(ctx) if p.param_type_name == "argument"]
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *arguments]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_groups(parameter_groups(self, ctx), formatter)


class Group(TyperGroup):
    """The application: its commands in groups, imported only when one of them runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (Click's signature)
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two_words = " ".join(args[:2])
        if len(args) > 1 and two_words in self.commands:
            return two_words, self.commands[two_words], args[2:]
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, listed in COMMANDS.items():
            groups.setdefault(listed.group, []).append((name, listed.line))
        records = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        groups["Options"] = [record for record in records if record is not None]
        _write_groups(groups, formatter)
