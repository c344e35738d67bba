"""Systems without what ppgs needs of Python itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ppgs.imports import BrokenInstallation

_WINDOWS = """
import os, sys
# Before the modules of other projects that register what is to happen at a fork.
import random
del os.register_at_fork
sys.modules["fcntl"] = None
from ppgs.cli.app import main
sys.platform, sys.argv = "win32", ["ppgs", "runs"]
main()
"""


@pytest.mark.parametrize("error", [ModuleNotFoundError(name="fcntl"), ModuleNotFoundError(name="_lzma")])
def test_nothing_of_python_itself_is_to_be_reinstalled(error: ModuleNotFoundError) -> None:
    broken = BrokenInstallation.of(error)
    assert broken is not None and f"module {error.name} is missing" in str(broken)
    assert "reinstall" not in broken.problems[0].remedy


def test_windows_is_refused_and_wsl_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", _WINDOWS], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Linux and macOS" in done.stderr and "WSL 2" in done.stderr
