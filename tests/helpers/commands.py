"""The real command in real processes: run it, start it, wait for what it logs, find what it left running."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import psutil

from ppgs.cli.app import main
from ppgs.nnunet.host.environment import as_given
from tests.helpers import warm

Result = subprocess.CompletedProcess[str]
Ppgs = Callable[..., Result]

# Options of a training that touches every stage of the demo in a few seconds.
SHORT = ("--epochs", "10", "--iterations", "3", "--device", "cpu", "--no-energy", "--no-tui")


# Commands that import PyTorch, or start what does.
_HEAVY = {"train", "resume", "validate", "predict", "prepare", "export", "plan-schedule", "doctor"}


def run_ppgs(*arguments: object, environ: dict[str, str] | None = None, timeout: float = 600) -> Result:
    """Run a command to its end; a long one in a process that need not import PyTorch."""
    words = list(map(str, arguments))
    # Tests find a training in the background by its command line, which a forked process has not.
    forked = not _HEAVY.isdisjoint(words[:1]) and "--detach" not in words
    return _run_python(["-m", "ppgs", *words], {"COLUMNS": "120", **(environ or {})}, timeout, forked=forked)


def run_script(script: Path, *arguments: object, environ: dict[str, str]) -> Result:
    """Run a Python script to its end, in a process that need not import PyTorch."""
    return _run_python([str(script), *map(str, arguments)], environ, 1200, forked=True)


def _run_python(words: list[str], environ: dict[str, str], timeout: float, *, forked: bool) -> Result:
    # A test may have prepared the environment of this process.
    whole = {**as_given(), **environ}
    if forked and warm.possible(environ):
        return warm.run(words, whole, timeout)
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=whole)


def in_process(*arguments: object) -> Result:
    """Run a command to its end in this process, for what it does before anything heavy."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    command = ["ppgs", *map(str, arguments)]
    with patch.object(sys, "argv", command), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return Result(command, code, out.getvalue(), err.getvalue())


def start(environ: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a command without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "ppgs", *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(results: Path, kind: str, count: int = 1, seconds: float = 120) -> None:
    """Wait until a run below `results` has logged `count` events of a kind."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for log in results.glob("*/*/fold_*/ppgs/events.jsonl"):
            if log.read_text().count(f'"type": "{kind}"') >= count:
                return
        time.sleep(0.05)
    raise AssertionError(f"no {kind} within {seconds} s")


def processes_of(run: Path, what: str = "") -> list[psutil.Process]:
    """Running processes whose command line names the run and `what`; without `what` also those that write into it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        named = str(run) in command and what in command
        if named or (not what and "forkserver" in command and _writes(process, run)):
            found.append(process)
    return found


def _writes(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process has a file of this folder open; the command line of a forked one does not name it."""
    with contextlib.suppress(psutil.Error):
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    return False
