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

Result = subprocess.CompletedProcess[str]
Ppgs = Callable[..., Result]

# Options of a training that touches every stage of the demo in a few seconds.
SHORT = ("--epochs", "10", "--iterations", "3", "--device", "cpu", "--no-energy", "--no-tui")


def run_ppgs(*arguments: object, environ: dict[str, str] | None = None, timeout: float = 600) -> Result:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ppgs", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "120", **(environ or {})},
    )


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
    """Running processes whose command line names the run and `what`."""
    commands = ((p, " ".join(p.info["cmdline"] or [])) for p in psutil.process_iter(["cmdline"]))
    return [p for p, command in commands if str(run) in command and what in command]
