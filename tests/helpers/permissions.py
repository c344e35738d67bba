"""Commands that permissions hold for: root passes over them, unless it gives that capability up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.commands import Result

_GIVEN_UP = "-dac_override,-dac_read_search"


def run_unprivileged(*arguments: object) -> Result:
    """Run a command that may not pass over permissions; skips the test where root cannot be kept from it."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", f"--bounding-set={_GIVEN_UP}", f"--inh-caps={_GIVEN_UP}"]
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("root cannot give up its right to pass over permissions here")
    return subprocess.run(
        [*prefix, sys.executable, "-m", "ppgs", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
