"""Standard streams of a command: it continues when its reader ends, and runs with streams that are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppgs.cli.output import LastingStream
from ppgs.cli.train.follow import signals_to


def test_a_reader_that_leaves_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        lasting = LastingStream(stream)
        for _ in range(2):
            assert lasting.write("a line\n") == 7
            lasting.flush()
        assert lasting.fileno() == writing and not lasting.isatty()
    # Closing wrote what was left without an error: the file leads nowhere now.


# A stand-in for a training: stopped, it takes a moment, and the command goes on narrating.
STOPPED_WHILE_NARRATING = """
import os, signal, sys, time
from ppgs.cli import output
from ppgs.cli.train.follow import signals_to

output.outlast_readers()
stopped = []
with signals_to(lambda: stopped.append(True)):
    print("ready", flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGINT)
    for n in range(3):
        output.note(f"line {n}")
sys.exit(75 if stopped == [True] else 1)
"""


def test_a_stop_is_passed_on_although_nobody_reads_what_is_said() -> None:
    """As Ctrl-C in `ppgs train X 2>&1 | tee log`, which ends `tee` too."""
    command = [sys.executable, "-c", STOPPED_WHILE_NARRATING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        process.stderr.close()
        process.stdin.write("x")
        process.stdin.flush()
        assert process.wait(60) == 75


def test_the_training_is_stopped_before_anything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("ppgs.cli.train.follow.note", lambda _: done.append("said"))
    with signals_to(lambda: done.append("stopped")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert done == ["stopped", "said"]


@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&- <&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    ppgs = f"{sys.executable} -m ppgs runs --json --root {tmp_path} {closed}"
    done = subprocess.run(["sh", "-c", ppgs], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "Error" not in done.stderr
    assert done.stdout.strip() == ("" if ">&- <" in closed else "[]")


@pytest.mark.parametrize("columns", ["0", "", "00"])
def test_a_width_of_nothing_hides_no_error(columns: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppgs", "resume", "nosuch", "--root", str(tmp_path)],
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 4 and "nosuch" in done.stderr


# Writes as `export` does, and is told to end amid it.
ENDED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from ppgs.cli import app
from ppgs.runs.atomic import write_atomically

def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGTERM)

app.app = lambda **_: write_atomically(Path(sys.argv[1]), write)
app.main()
"""


def test_a_termination_leaves_no_half_written_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDED_WHILE_WRITING, str(tmp_path / "model.zip")])
    assert done.returncode == 75
    assert not list(tmp_path.iterdir())
