"""`--help`: complete, in groups, true and fit to be copied; and the errors of wrong command lines."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any

import pexpect
import pytest
import typer

from ppgs.cli import app as cli
from ppgs.cli.registry import COMMANDS
from tests.conftest import Ppgs, run_ppgs
from tests.helpers.commands import in_process


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(cli.app)
    return dict(root.commands)


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    narrow = {"COLUMNS": "80"}
    names = ["", *commands()]
    found = {name: run_ppgs(*name.split(), "--help", environ=narrow) for name in names}
    assert {done.returncode for done in found.values()} == {0}
    assert {done.stderr for done in found.values()} == {""}
    return {name: done.stdout for name, done in found.items()}


def test_the_whole_shows_every_command_in_a_group(helps: dict[str, str]) -> None:
    assert re.findall(r"^\w.*$", helps[""], re.MULTILINE)[1:] == ["Plan", "Train", "Use", "Setup", "Options"]
    for name in commands():
        assert re.search(rf"^  {name} +\w", helps[""], re.MULTILINE)


@pytest.mark.parametrize("name", commands())
def test_every_option_is_explained_and_nothing_breaks_when_copied(name: str, helps: dict[str, str]) -> None:
    text = helps[name]
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"[\x1b│╭\[]/?bold|<\w+>|\brequired=", text)
    for parameter in commands()[name].params:
        assert parameter.help, parameter.name
        assert parameter.metavar or getattr(parameter, "is_flag", False), f"{parameter.name} has no metavar"
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"(^|\s){re.escape(option)}(\s|,|$)", text, re.MULTILINE), option
    # Options without a group are those of all commands, and at most two more.
    assert text.split("\nOptions\n")[1].split("Examples:")[0].count("\n  -") <= 3


@pytest.mark.parametrize("name", commands())
def test_examples_are_commands_that_are_understood(name: str, helps: dict[str, str]) -> None:
    examples = [line.strip() for line in helps[name].split("Examples:\n")[1].splitlines()]
    assert examples
    for example in examples:
        assert example.startswith(f"ppgs {name}")
        words = shlex.split(example.split(" > ")[0])
        commands()[name].make_context(name, words[1 + len(name.split()) :])


def test_usage_names_what_may_be_left_out(helps: dict[str, str]) -> None:
    assert "Usage: ppgs predict [OPTIONS]" in helps["predict"]
    assert "Usage: ppgs completion [OPTIONS] show|install [bash|zsh|fish]\n" in helps["completion"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian demo", "did you mean 'train'?"),
        ("train demo --epoch 3", "did you mean '--epochs'?"),
        ("train demo --shedule x", "did you mean '--schedule'?"),
        ("train demo --epochs 0", "--epochs"),
        ("train demo --zyxw", "'ppgs train --help'"),
        ("predict demo", "--input"),
        ("resume a b", "(b)"),
    ],
)
def test_a_wrong_line_is_told_as_every_error_is(line: str, said: str, ppgs: Ppgs) -> None:
    done = ppgs(*line.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*\n    where:  ppgs.*\n    remedy: .*\n", done.stderr), done.stderr
    assert said in done.stderr


def test_version(ppgs: Ppgs) -> None:
    import ppgs as package

    assert ppgs("--version").stdout == f"ppgs {package.__version__}\n"


def test_colours_are_left_out_where_nobody_wants_them() -> None:
    def on_a_terminal(*arguments: str, **environ: str) -> str:
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")} | {"TERM": "xterm-256color"}
        child = pexpect.spawn(
            sys.executable, ["-m", "ppgs", *arguments], env={**clean, **environ}, encoding="utf-8", timeout=60
        )
        child.expect(pexpect.EOF)
        return str(child.before)

    wrong = ("resume", "nothing", "--root", "/nowhere")
    assert "\x1b[1;31m" in on_a_terminal(*wrong)
    assert "\x1b[" in on_a_terminal("--help")
    assert "\x1b[31m" not in on_a_terminal(*wrong, NO_COLOR="1")
    assert "31m" not in on_a_terminal(*wrong, NO_COLOR="1")
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[" not in on_a_terminal("--help", **environ)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    """The list is kept apart so that `--help` imports no command."""
    command = commands()[name]
    listed = COMMANDS[name]
    assert (listed.group, listed.line) == (command.rich_help_panel, command.get_short_help_str(limit=200))


@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_foresaw_is_told_in_a_block_and_whole_with_debug(
    debug: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the moon")

    monkeypatch.setattr(cli, "app", fail)
    if debug:
        with pytest.raises(RuntimeError, match="the moon"):
            in_process("runs", "--debug")
        return
    done = in_process("runs")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: RuntimeError: the moon") and "--debug" in done.stderr
    assert "Traceback" not in done.stderr
