"""Programs that are forked instead of started (`tests.helpers.warm`) behave as those that are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import warm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")]

PROGRAM = """
import multiprocessing, os, sys
print(sys.argv[1:], os.environ["GIVEN"], "HOME" in os.environ, os.getcwd(), repr(sys.stdin.read()), __name__)
print(multiprocessing.current_process().name, multiprocessing.parent_process(), file=sys.stderr)
{end}
"""
PARENT = """
import os, signal, subprocess, sys
with open("log", "wb") as log:
    child = subprocess.Popen([sys.executable, "child.py"], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    print(child.wait())
done = subprocess.run([sys.executable, "echo.py"], input="to the child", capture_output=True, text=True)
print(done.returncode, done.stdout)
child = subprocess.Popen([sys.executable, "sleeper.py"], stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(signal.SIGTERM)
print(child.wait(), open("log").read() == f"{os.getpid()} True True\\n")
"""
CHILDREN = {
    "child.py": "import os; print(os.getppid(), os.getsid(0) == os.getpid(), 'torch' in __import__('sys').modules)",
    "echo.py": "import sys; print(sys.stdin.read()); raise SystemExit(3)",
    "sleeper.py": "import time; print('here', flush=True); time.sleep(60)",
}


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(7)",
        "sys.exit('in words')",
        "1 / 0",
        "import signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit; atexit.register(print, 'at its end')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()",
    ],
)
def test_it_prints_and_ends_the_same(tmp_path: Path, end: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(end=end))
    words, environ = [str(program), "a", "b c"], {"GIVEN": "x", "PATH": os.environ["PATH"]}
    forked = warm.run(words, environ, 100)
    started = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environ, stdin=subprocess.DEVNULL
    )
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    # A traceback has further lines of those who ran it.
    assert {line.strip() for line in started.stderr.splitlines()} <= {
        line.strip() for line in forked.stderr.splitlines()
    }


def test_what_it_starts_are_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in {"parent.py": PARENT, **CHILDREN}.items():
        Path(name).write_text(code)
    done = warm.run(["parent.py"], dict(os.environ), 100)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["0", "3 to the child", "", "-15 True", ""]


def test_it_is_ended_when_it_takes_too_long(tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(CHILDREN["sleeper.py"])
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([str(sleeper)], dict(os.environ), 0.5)


def test_what_is_read_when_a_process_begins_is_not_forked() -> None:
    assert warm.possible({"nnUNet_raw": "x", "COLUMNS": "80"})
    assert not warm.possible({"OMP_NUM_THREADS": "1"})
    assert not warm.possible({"PYTHONPATH": "x"})
