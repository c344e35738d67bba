"""Completions: made from the command line, quick, and right in the real shells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from ppgs.cli import app as cli
from ppgs.cli.completion.candidates import KINDS, offer
from ppgs.cli.completion.command import Shell
from ppgs.cli.completion.scripts import Takes, commands, script
from ppgs.errors import BadInput
from tests.conftest import Ppgs

ROOT = Path(__file__).resolve().parents[2]
FILES = {"bash": "ppgs.bash", "zsh": "_ppgs", "fish": "ppgs.fish"}


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: script(shell, commands(cli.app)) for shell in Shell}


@pytest.mark.parametrize("shell", Shell)
def test_the_committed_scripts_are_those_that_the_command_line_makes(scripts: dict[str, str], shell: str) -> None:
    made = (ROOT / "completions" / FILES[shell]).read_text()
    assert made == scripts[shell], f"ppgs completion show {shell} > completions/{FILES[shell]}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two datasets, and runs of which one is in a damaged file."""
    root = tmp_path / "root"
    for name in ("Dataset004_Hippocampus", "Dataset777_With-Dash"):
        (root / "nnUNet_raw" / name).mkdir(parents=True)
    runs = {"Hippocampus-efficiency-fold0": "finished", "Hippocampus-efficiency-fold1": "stopped", "$(id)": "stopped"}
    for number, (name, status) in enumerate(runs.items()):
        own = root / "nnUNet_results" / "Dataset004_Hippocampus" / "T__P__C" / f"fold_{number}" / "ppgs"
        own.mkdir(parents=True)
        (own / "run.json").write_text(json.dumps({"name": name, "status": status}))
    (own.parent.parent / "fold_7" / "ppgs").mkdir(parents=True)
    (own.parent.parent / "fold_7" / "ppgs" / "run.json").write_text("[" * 100_000)
    return root


class TestValues:
    def test_tasks(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "Task09_Spleen").mkdir()
        line = ("train", "--root", str(root), "")
        assert list(offer("TASK", "", line)) == [
            "demo",
            "Dataset004_Hippocampus",
            "Dataset777_With-Dash",
            "Task09_Spleen",
        ]
        assert list(offer("TASK", "Dataset7", line)) == ["Dataset777_With-Dash"]
        planned = offer("TASK", "Task0", ("plan-schedule", f"--root={root}", "Task0"))
        assert len(planned) == 9
        assert planned["Task01_BrainTumour"] == "default plans"

    def test_runs(self, root: Path) -> None:
        at = ("--root", "=", str(root))
        both = ["Hippocampus-efficiency-fold0", "Hippocampus-efficiency-fold1"]
        assert list(offer("RUN", "", ("monitor", *at))) == both
        assert list(offer("RUN", "", ("resume", *at))) == both[1:]
        assert not offer("RUN", "", ("stop", *at))
        manifest = next(root.rglob("fold_1/ppgs/run.json"))
        manifest.write_text(manifest.read_text().replace("stopped", "training"))
        assert list(offer("RUN", "", ("stop", *at))) == both[1:]
        assert list(offer("RUN", "Hip", ("predict", *at))) == [*both, "Hippocampus-efficiency"]

    def test_lists_are_completed_one_after_the_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.yaml").write_text("mode: efficiency")
        assert list(offer("SCHEDULE", "p", ())) == ["performance", "pgps-2024", "pgps-plus-2024"]
        assert list(offer("SCHEDULE", "m", ())) == ["mine.yaml"]
        assert list(offer("SCHEDULE", "efficiency,co", ())) == ["efficiency,constant"]
        assert list(offer("CONFIGURATION", "2d,3d_l", ())) == ["2d,3d_lowres"]

    def test_nothing_is_said_of_what_is_wrong(self, ppgs: Ppgs) -> None:
        for arguments in ((), ("RUN",), ("NONSENSE", ""), ("RUN", "", "--root", "/dev/null")):
            done = ppgs("completion", "values", *arguments)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_an_answer_imports_nothing_heavy(self, root: Path) -> None:
        code = (
            "import sys; sys.argv = ['ppgs', 'completion', 'values', sys.argv[1], '', 'train', '--root', sys.argv[2]];"
            "from ppgs.__main__ import main; main();"
            "loaded = {'typer', 'rich', 'pydantic', 'yaml', 'torch', 'numpy', 'psutil'} & set(sys.modules);"
            "sys.exit(str(loaded) if loaded else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code, ",".join(KINDS), str(root)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Hippocampus-efficiency-fold0\tfinished" in done.stdout


def test_metavars_say_what_completes() -> None:
    assert Takes.of("auto|cuda|cpu|mps") == Takes(("auto", "cuda", "cpu", "mps"), "", "none")
    assert Takes.of("[RUN]...") == Takes((), "RUN", "folders")
    assert Takes.of("SCHEDULE|FILE") == Takes((), "SCHEDULE", "files")
    assert Takes.of("N") == Takes((), "", "none")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Environment with a separate home folder, and `ppgs` on the PATH."""
    program = tmp_path / "bin" / "ppgs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m ppgs \"$@\"\n")
    program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ZDOTDIR", "nnUNet_", "BASH"))}
    return {**clean, "HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "> "}


def shell_of(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


def type_and_tab(name: str, environ: dict[str, str], cwd: Path, typed: str) -> pexpect.spawn:
    """Return the screen of an interactive shell after typing a line and a TAB."""
    options = {"bash": ["--noprofile", "-i"], "zsh": ["-i"], "fish": ["-i"]}[name]
    child = pexpect.spawn(shell_of(name), options, env=environ, cwd=str(cwd), encoding="utf-8", timeout=20)
    child.setwinsize(50, 200)
    child.sendline("echo rea''dy")
    child.expect("ready\r?\n")
    child.send(typed + "\t")
    return child


@pytest.mark.parametrize("name", Shell)
def test_installed_once_it_completes_in_the_real_shell(
    name: str, environ: dict[str, str], root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    shell_of(name)
    environ = {**environ, "SHELL": f"/bin/{name}"}
    first = ppgs("completion", "install", environ=environ)
    assert first.returncode == 0, first.stderr
    assert "written" in first.stderr
    before = {p: p.read_text() for p in Path(environ["HOME"]).rglob("*") if p.is_file()}
    again = ppgs("completion", "install", environ=environ)
    assert "written" not in again.stderr and "added" not in again.stderr
    assert before == {p: p.read_text() for p in Path(environ["HOME"]).rglob("*") if p.is_file()}
    if name == "fish":
        for line, offered in CASES:
            done = subprocess.run(
                [shell_of("fish"), "-c", f"complete -C '{line.format(root=root)}'"],
                capture_output=True,
                text=True,
                env=environ,
                cwd=tmp_path,
            )
            assert [x.split("\t")[0] for x in done.stdout.splitlines()] == offered, (line, done.stderr)
        return
    for line, offered in CASES:
        if len(offered) != 1:
            continue
        child = type_and_tab(name, environ, tmp_path, line.format(root=root))
        # The whole word is on the line once it is complete.
        child.expect_exact(offered[0].removeprefix("--schedule="))
        child.close(force=True)


CASES = (
    ("ppgs plan-s", ["plan-schedule"]),
    ("ppgs train --iter", ["--iterations"]),
    ("ppgs resume --root {root} Hip", ["Hippocampus-efficiency-fold1"]),
    ("ppgs train --root {root} Dataset7", ["Dataset777_With-Dash"]),
    ("ppgs train demo --schedule eff", ["efficiency"]),
    ("ppgs train demo --schedule efficiency,con", ["efficiency,constant"]),
    ("ppgs train demo --schedule=eff", ["--schedule=efficiency"]),
    ("ppgs train demo --device cu", ["cuda"]),
    ("ppgs plan-schedule Task01_BrainTumour --gpu-memory rtx30", ["rtx3060", "rtx3070", "rtx3080", "rtx3090"]),
    ("ppgs completion ins", ["install"]),
    ("ppgs runs exp", ["export-logs"]),
    ("ppgs runs export-logs --t", ["--to"]),
    ("ppgs runs export-logs --to mlf", ["mlflow"]),
    ("ppgs runs export-logs --root {root} Hippocampus-efficiency-fold1", ["Hippocampus-efficiency-fold1"]),
)


def test_bash_offers_all_that_fits(environ: dict[str, str], root: Path, tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    for line, offered in (
        *((line.format(root=root), offered) for line, offered in CASES),
        ("ppgs runs --root a", ["a folder"]),
        ("ppgs train demo --epochs ", []),
    ):
        *words, last = line.split(" ")
        quoted = " ".join(f"'{w}'" for w in (*words, *last.replace("=", " = ").split(" ")))
        code = (
            f"source '{ROOT}/completions/ppgs.bash'; COMP_WORDS=({quoted}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1));"
            "_ppgs; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            [shell_of("bash"), "--norc", "-c", code], capture_output=True, text=True, env=environ, cwd=tmp_path
        )
        expected = [x.removeprefix("--schedule=") for x in offered]
        assert [x for x in done.stdout.splitlines() if x] == expected, (line, done.stderr)


def test_install_says_what_cannot_be_done(ppgs: Ppgs, environ: dict[str, str]) -> None:
    for changed, arguments, said in (
        ({"SHELL": "/bin/tcsh"}, (), "'tcsh'"),
        ({"SHELL": ""}, (), "SHELL"),
        ({"HOME": "/dev/null"}, ("bash",), "completion show"),
        ({}, ("csh",), "csh"),
    ):
        done = ppgs("completion", "install", *arguments, environ={**environ, **changed})
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_startup_file_is_only_added_to(tmp_path: Path) -> None:
    from ppgs.commands.completion import install, place_of

    place = place_of("zsh", {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path / "z")})
    assert place.startup == tmp_path / "z" / ".zshrc"
    place.startup.parent.mkdir()
    place.startup.write_text("alias x=y")
    install(place, "a")
    install(place, "b")
    place.script.write_text("changed by hand")
    with pytest.raises(BadInput, match="not written by ppgs"):
        install(place, "c")
    assert place.script.read_text() == "changed by hand"
    place.script.unlink()
    install(place, "b")
    alias, line = place.startup.read_text().splitlines()
    assert alias == "alias x=y"
    assert str(place.script) in line
    assert place.script.read_text() == "b"
