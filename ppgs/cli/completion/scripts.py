"""Completion scripts for bash, zsh and fish, made from the command line itself.

Commands, options and fixed words stand in the script, so that offering them starts no process. What an option takes is
read from its metavar: words in lower case (`auto|cuda|cpu|mps`) are offered as they are, names of `candidates.KINDS`
are asked for, files and folders are left to the shell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jinja2
import typer

from ppgs.cli.completion.candidates import KINDS

_FOLDERS = ("DIR", "FOLDER")
_FILES = ("IN", "OUT")


@dataclass(frozen=True)
class Takes:
    """Values of an option or argument: fixed words, kinds of `candidates.KINDS`, and what the shell completes."""

    words: tuple[str, ...]
    kinds: str
    paths: Literal["files", "folders", "none"]

    @property
    def anything(self) -> bool:
        return bool(self.words or self.kinds) or self.paths != "none"

    @classmethod
    def of(cls, metavar: str) -> Takes:
        parts = metavar.replace("[", "").replace("]", "").replace("...", "").split("|")
        kinds = [p for p in parts if p in KINDS]
        files = any(p in _FILES or p.startswith("FILE") for p in parts)
        folders = any(p in (*_FOLDERS, "TASK", "RUN") for p in parts)
        return cls(
            words=tuple(p for p in parts if re.fullmatch(r"[a-z][a-z-]*", p)),
            kinds=",".join(kinds),
            paths="files" if files else "folders" if folders else "none",
        )


@dataclass(frozen=True)
class Option:
    """An option with all its spellings; `takes` is None for a switch."""

    names: tuple[str, ...]
    help: str
    takes: Takes | None
    repeatable: bool


@dataclass(frozen=True)
class Argument:
    """A positional argument; with `many` it takes the rest of the line."""

    metavar: str
    takes: Takes
    many: bool


@dataclass(frozen=True)
class Command:
    """A command as the shells know it."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]

    @property
    def spellings(self) -> str:
        """Every option in every spelling, separated by spaces."""
        return " ".join(name for option in self.options for name in option.names)


def commands(app: typer.Typer) -> list[Command]:
    """Return all commands of the application, after an unnamed one with the options that precede a command."""
    root: Any = typer.main.get_command(app)
    found = [_command("", root), *(_command(name, command) for name, command in root.commands.items())]
    second_words = [command.name.split(" ") for command in found if " " in command.name]
    return [
        replace(
            one, arguments=(*one.arguments, *(_word(second) for first, second in second_words if first == one.name))
        )
        for one in found
    ]


def _word(word: str) -> Argument:
    """Return the second word of a command (`runs export-logs`) as an argument of the first."""
    return Argument(word, Takes((word,), "", "none"), False)


def _command(name: str, command: Any) -> Command:
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    help_option = Option(("--help", "-h"), "Show this message and exit.", None, False)
    return Command(
        name,
        _line(command.help),
        (*map(_option, options), help_option),
        tuple(Argument(p.metavar, Takes.of(p.metavar), p.nargs == -1) for p in arguments),
    )


def _option(given: Any) -> Option:
    takes = None if given.is_flag else Takes.of(given.metavar or "")
    return Option((*given.opts, *given.secondary_opts), _line(given.help), takes, given.multiple)


def _line(text: str | None) -> str:
    """Return the first sentence of a help text, without markup."""
    paragraph = " ".join((text or "").split("\n\n")[0].split())
    first = re.split(r"(?<=[\w)])[.;](?:\s|$)", paragraph, maxsplit=1)[0]
    return re.sub(r"\[/?[a-z]*\]", "", first)


def _quote(text: str) -> str:
    """Quote text with single quotes for bash and zsh."""
    return text.replace("'", "'\\''")


def _zsh(text: str) -> str:
    """Escape text for a single-quoted specification of zsh's `_arguments`."""
    return _quote(re.sub(r"([\[\]:\\])", r"\\\1", text))


def _fish(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def script(shell: str, found: Sequence[Command]) -> str:
    """Return the completion script of a shell."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "shells"),
        autoescape=False,  # noqa: S701  (shell scripts, no HTML)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="{##",  # `{#` is shell
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"quote": _quote, "zsh": _zsh, "fish": _fish}
    return environment.get_template(f"{shell}.j2").render(
        root=found[0],
        commands=found[1:],
        first_words=[command for command in found[1:] if " " not in command.name],
        two_words=[command for command in found[1:] if " " in command.name],
    )
