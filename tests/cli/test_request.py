"""Every option of a training is one field of `TrainingRequest`; here each is followed to wherever it must arrive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

import ppgs.api
from ppgs.cli.train import command
from ppgs.commands.train.sweep import plan_sweep
from ppgs.errors import BadInput
from ppgs.runs.manifest import read_manifest
from ppgs.runs.request import TrainingRequest, options_of
from ppgs.tasks import Roots

COMPLETIONS = Path(__file__).resolve().parents[2] / "completions"
# Values of options that are text; all others follow from their type.
TEXTS = {
    "configuration": "2d",
    "plans": "nnUNetResEncUNetMPlans",
    "mirroring": "off",
    "gpu_memory": "24GiB",
    "device": "cpu",
    "schedule": "constant",
    "trainer": "nnUNetTrainerDiceLoss",
    "previous_stage": "a-run",
    "name": "again",
    "budget": "2h",
    "log": "tensorboard,mlflow",
    "until": "2099-12-01T07:00",
    "start_patch": "16,16,16",
    "pretrained": "a-run",
}


def another(name: str) -> Any:
    """A value of the option that is not its default."""
    field = TrainingRequest.model_fields[name]
    kind: Any = next((k for k in get_args(field.annotation) if k is not NoneType), field.annotation)
    if get_origin(field.annotation) is Literal:
        return next(word for word in get_args(field.annotation) if word != field.default)
    if get_origin(kind) is list:
        return ["encoder.*", "decoder.transpconvs.*"]
    if kind is bool:
        return not field.default
    return TEXTS[name] if kind is str else kind((field.default or 0) + 3)


EVERY = {name: another(name) for name in options_of(TrainingRequest)}


class Caught(Exception):
    def __init__(self, asked: TrainingRequest) -> None:
        self.asked = asked


def catch(position: int) -> Callable[..., None]:
    """Replace a function that receives the request at this position."""

    def caught(*arguments: Any, **_: Any) -> None:
        raise Caught(arguments[position])

    return caught


def shown(name: str) -> list[str]:
    """Return the option as it is typed."""
    flag, value = f"--{name.replace('_', '-')}", EVERY[name]
    if isinstance(value, list):
        return [part for one in value for part in (flag, one)]
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    return [flag, str(value)]


@pytest.mark.parametrize("name", EVERY)
def test_the_command_line_takes_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "plan_sweep", catch(1))
    app = typer.Typer()
    command.register(app)
    caught = CliRunner().invoke(app, ["demo", "--root", str(tmp_path), *shown(name)]).exception
    assert isinstance(caught, Caught), caught
    assert caught.asked == TrainingRequest(task="demo", **{name: EVERY[name]})


def test_python_takes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppgs.api, "create_run", catch(0))
    with pytest.raises(Caught) as caught:
        ppgs.api.train("demo", root=tmp_path, **EVERY)
    assert caught.value.asked == TrainingRequest(task="demo", **EVERY)


def test_python_is_told_every_wrong_option(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        ppgs.api.train("demo", root=tmp_path, epochs="many", iterations=0)
    assert {problem.where for problem in caught.value.problems} == {"epochs", "iterations"}


def test_a_sweep_writes_all_for_the_process_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's jobs and the training process read it there."""
    monkeypatch.setattr("ppgs.trackers._is_installed", lambda _: True)
    # A budget takes the place of epochs, and a start patch that of a stage; runs that are named must be there.
    absent = dict.fromkeys(("previous_stage", "budget", "until", "start_patch", "pretrained", "freeze"))
    asked = TrainingRequest(task="demo", **{**EVERY, **absent})
    roots = Roots.under(tmp_path)
    for planned in plan_sweep(["demo"], asked, "0-1", roots):
        stored = read_manifest(planned.claim(roots)).request
        # A schedule's name becomes its text.
        assert (stored.schedule_name, stored.kind) == (asked.schedule, "demo")
        same = set(EVERY) - {"schedule"}
        assert stored.model_dump(include=same) == asked.model_dump(include=same)


@pytest.mark.parametrize("script", ["ppgs.bash", "_ppgs", "ppgs.fish"])
def test_every_shell_completes_it(script: str) -> None:
    text = (COMPLETIONS / script).read_text()
    for name in EVERY:
        flag = shown(name)[0].removeprefix("--")
        assert f"--{flag}" in text or f"-l {flag}" in text, name
