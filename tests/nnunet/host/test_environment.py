"""Settings before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppgs.errors import BadInput
from ppgs.nnunet.host import environment
from ppgs.nnunet.host.environment import as_given, given_workers, pool_size, prepare_environment
from ppgs.tasks import Roots

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def openmp_after(code: str, **environ: str) -> str:
    """Return the settings that the OpenMP runtime reports when it is loaded in a new process."""
    clean = {k: v for k, v in os.environ.items() if k not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "OMP_DISPLAY_ENV": "verbose", **environ},
        input="{}",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


PREPARED = """
import sys
from pathlib import Path
from ppgs.nnunet.host.environment import prepare_environment
from ppgs.tasks import Roots
assert "torch" not in sys.modules
prepare_environment(Roots.under(Path("nowhere")))
import torch
"""
# Without a run in that folder it ends early, but as one that has loaded torch: it is one of several processes.
TRAINING = """
import sys
import ppgs.nnunet.process.__main__ as training
assert "torch" not in sys.modules
sys.argv[1:] = ["nowhere"]
try:
    training.main()
except BaseException:
    pass
import torch
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "environ"),
    [(PREPARED, {}), (TRAINING, {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"})],
    ids=["prepared", "rank"],
)
def test_threads_that_wait_for_each_other_sleep(code: str, environ: dict[str, str]) -> None:
    said = openmp_after(code, **environ)
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this OpenMP runtime does not say how it waits")
    assert "GOMP_SPINCOUNT = '10000'" in said


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "1234")])
def test_a_waiting_policy_that_is_set_stays(name: str, value: str) -> None:
    said = openmp_after(PREPARED, **{name: value})
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this OpenMP runtime does not say how it waits")
    assert f"{name} = '{value.upper()}'" in said


@pytest.mark.parametrize(
    ("name", "value"), [("nnUNet_def_n_proc", "abc"), ("nnUNet_def_n_proc", ""), ("nnUNet_n_proc_DA", "-1")]
)
def test_numbers_of_processes_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"{name} is '{value}'"):
        prepare_environment(Roots.under(Path("nowhere")))


@pytest.mark.parametrize("given", [None, "0", "3"])
def test_numbers_that_are_set_for_nnunet_are_not_taken_for_given_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None
) -> None:
    names = ("nnUNet_def_n_proc", "nnUNet_n_proc_DA")
    monkeypatch.setattr(environment, "_REPLACED", {})
    roots = Roots.under(tmp_path)
    # Whatever is set below is undone in the end.
    for name, value in {**roots.environment, **dict.fromkeys(names, given or "1")}.items():
        monkeypatch.setenv(name, value)
    if given is None:
        for name in names:
            monkeypatch.delenv(name)
    for _ in range(2):
        prepare_environment(roots)
        assert all(int(os.environ[name]) >= 1 for name in names)
        assert [as_given().get(name) for name in names] == [given] * 2
        assert given_workers() == (None if given is None else int(given))
        assert pool_size() >= 1 and (given != "3" or pool_size() == 3)
