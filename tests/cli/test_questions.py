"""At a terminal, choices are offered and hours of work confirmed; elsewhere nothing is ever asked."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pexpect
import pytest

from ppgs.cli import ask
from ppgs.cli.ask import _picked
from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from tests.conftest import Ppgs
from tests.helpers.datasets import decathlon
from tests.helpers.made_runs import made

CODE_STOPPED = 75


@contextmanager
def terminal(*arguments: object, environ: dict[str, str], cwd: Path | None = None) -> Iterator[pexpect.spawn]:
    """The command on its own terminal."""
    whole = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", **environ}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ppgs", *map(str, arguments)],
        env=whole,
        cwd=str(cwd) if cwd else None,
        encoding="utf-8",
        timeout=120,
        dimensions=(40, 120),
        # Whoever runs the tests in the background may ignore it; a terminal's processes do not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield child
    finally:
        child.close(force=True)


def ends_with(child: pexpect.spawn) -> int:
    child.expect(pexpect.EOF)
    child.wait()
    return int(child.exitstatus)


def make_run(results: Path, name: str, status: str, age: float, *, checkpoint: bool = True) -> RunFolder:
    run = RunFolder.place(results, "Dataset999_Demo", name, "nnUNetPlans", "3d_fullres", 0)
    made(run, name, status, dataset="Dataset999_Demo")
    updated = read_manifest(run).updated
    text = run.manifest.read_text().replace(f'"updated": {updated}', f'"updated": {updated - age}')
    run.manifest.write_text(text)
    EventLog(run.events).close()
    if checkpoint:
        run.checkpoint_latest.write_bytes(b"")
    return run


@pytest.fixture
def results(demo_environ: dict[str, str]) -> Path:
    results = Path(demo_environ["nnUNet_results"])
    for age, (name, status) in enumerate((("new", "stopped"), ("old", "failed"), ("done", "finished"))):
        make_run(results, f"demo-{name}-fold0", status, age * 100.0)
    return results


class TestAnswers:
    def test_numbers_names_and_ranges(self) -> None:
        names = ["a", "b", "c-fold0", "d"]
        assert _picked("2", names, several=False) == ["b"]
        assert _picked("c-fold0", names, several=False) == ["c-fold0"]
        assert _picked("4,1-2", names, several=True) == ["d", "a", "b"]
        assert _picked("1 1, b", names, several=True) == ["a", "b"]

    @pytest.mark.parametrize("answer", ["0", "5", "3-2", "x", "", "1,2", "-1", "2-9"])
    def test_what_is_neither(self, answer: str) -> None:
        with pytest.raises(ValueError):
            _picked(answer, ["a", "b", "c", "d"], several=False)


@pytest.mark.parametrize(
    ("line", "metavar"),
    [("train", "TASK"), ("predict -i x -o y", "RUN"), ("compare", "RUN"), ("compare --json", "RUN")],
)
def test_nobody_is_asked_where_nobody_sits(
    line: str, metavar: str, ppgs: Ppgs, results: Path, demo_environ: dict[str, str]
) -> None:
    done = ppgs(*line.split(), environ=demo_environ)
    assert done.returncode == 2
    assert f"missing argument '{metavar}'" in done.stderr
    assert done.stdout == ""


def test_results_as_json_are_not_asked_for(demo_environ: dict[str, str]) -> None:
    with terminal("train", "--json", environ=demo_environ) as child:
        child.expect_exact("missing argument 'TASK'")
        assert ends_with(child) == 2


class TestTrain:
    def test_a_task_is_offered_and_hours_are_asked_about(self, demo_environ: dict[str, str], tmp_path: Path) -> None:
        decathlon = tmp_path / "Task07_Small"
        decathlon.mkdir()
        (decathlon / "dataset.json").write_text("{}")
        line = ("train", "--epochs", "1000", "--iterations", "250", "--device", "cpu", "--no-tui")
        environ = {**demo_environ, "PPGS_CACHE": str(tmp_path / "cache")}
        with terminal(*line, environ=environ, cwd=tmp_path) as child:
            child.expect("1 +demo .*2 +Task07_Small")
            child.sendline("9")
            child.expect_exact("'9' is not between 1 and 2")
            child.sendline("demo")
            child.expect_exact("1000 epochs of 250 iterations")
            child.expect_exact("32 32 32")
            child.expect("hours, as far as is known: begin")
            child.sendline("n")
            child.expect_exact("nothing was started")
            assert ends_with(child) == CODE_STOPPED
        assert not Path(demo_environ["nnUNet_results"]).exists()

    def test_what_is_not_prepared_is_asked_about_too_and_yes_skips_it(
        self, demo_environ: dict[str, str], tmp_path: Path
    ) -> None:
        folder = decathlon(tmp_path, "Task07_Small")
        line = ("train", folder, "--no-tui", "--device", "cpu", "--root", tmp_path / "root")
        with terminal(*line, environ={}) as child:
            child.expect_exact("250000")
            child.expect_exact("begin?")
            child.sendintr()
            assert ends_with(child) == CODE_STOPPED
        assert not (tmp_path / "root").exists()
        with terminal(*line, "--yes", environ={}) as child:
            # The preparation begins only after the question would have been asked.
            assert child.expect_exact(["begin?", "converting"]) == 1
            child.sendintr()
            assert ends_with(child) == CODE_STOPPED

    def test_minutes_are_not_asked_about(self, demo_environ: dict[str, str]) -> None:
        line = ("train", "--schedule", "constant", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--no-tui")
        with terminal(*line, "--no-energy", environ=demo_environ) as child:
            child.expect_exact("task to train")
            child.sendline("")
            child.expect("validation Dice")
            assert ends_with(child) == 0


class TestRuns:
    def test_resume_offers_what_is_unfinished_the_newest_first(
        self, results: Path, demo_environ: dict[str, str]
    ) -> None:
        with terminal("resume", "--no-tui", environ=demo_environ) as child:
            child.expect("1 +demo-new-fold0 +stopped")
            child.expect("2 +demo-old-fold0 +failed")
            child.expect("run to continue")
            assert "demo-done" not in str(child.before)
            child.sendeof()
            assert ends_with(child) == CODE_STOPPED

    def test_predict_offers_what_has_a_checkpoint(self, results: Path, demo_environ: dict[str, str]) -> None:
        make_run(results, "demo-bare-fold0", "stopped", 0, checkpoint=False)
        with terminal("predict", "-i", "/nowhere", "-o", "x", environ=demo_environ) as child:
            child.expect("1 +demo-new-fold0.*3 +demo-done-fold0")
            assert "bare" not in str(child.before) + str(child.after)
            child.sendline("2")
            # The run that was picked is looked into before the images are.
            child.expect("old")
            assert ends_with(child) in (2, 4)

    def test_compare_takes_several(self, results: Path, demo_environ: dict[str, str]) -> None:
        with terminal("compare", environ=demo_environ) as child:
            child.expect("1 finished run, comparing takes two")
            assert ends_with(child) == 4
        make_run(results, "demo-more-fold0", "finished", 1000)
        with terminal("compare", environ=demo_environ) as child:
            child.expect("1 +demo-done-fold0.*2 +demo-more-fold0")
            child.sendline("1-2")
            child.expect("demo-(done|more)-fold0")
            assert ends_with(child) in (2, 4)

    def test_monitor_offers_all_where_none_is_live(self, results: Path, demo_environ: dict[str, str]) -> None:
        with terminal("monitor", environ=demo_environ) as child:
            child.expect("1 +demo-new.*3 +demo-done")
            child.sendline("")
            # The monitor takes the terminal over, and is left once it listens.
            child.expect_exact("\x1b[?1049h")
            for _ in range(100):
                child.send("q")
                if child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=2) == 0:
                    break
            child.wait()
            assert child.exitstatus == 0


def test_runs_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        SimpleNamespace(path=Path(f"/r/Dataset{n}_A/T__p__c/fold_0"), manifest=SimpleNamespace(name=name, updated=n))
        for n, name in ((1, "Liver-fold0"), (2, "Liver-fold0"), (3, "Spleen-fold0"))
    ]
    monkeypatch.setattr(ask, "table_of", lambda *_, **__: "")
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "1,3")
    rows: Any = runs
    assert ask.choose_runs(rows, "run", several=True) == ["Spleen-fold0", str(runs[0].path)]
