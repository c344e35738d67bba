"""Settings that must precede the import of torch and nnunetv2: folders, process counts, how threads wait."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ppgs.errors import BadInput
from ppgs.processes.limits import cpu_count
from ppgs.processes.temporary import choose_temporary_folder
from ppgs.tasks import Roots

_PREPARING, _LOADING = "nnUNet_def_n_proc", "nnUNet_n_proc_DA"
# By name: the number that `prepare_environment` set for nnU-Net, and the one that was given before (None: none was).
_REPLACED: dict[str, tuple[str, str | None]] = {}


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's waiting threads sleep soon, unless a waiting policy is set already.

    Call before torch is imported: the OpenMP runtime reads the environment when it is loaded. By default libgomp lets a
    thread that waits for the others of its operation spin 300,000 times, some milliseconds. Where other processes
    compete for the CPUs, it uses up the time slice that the thread it waits for needs, and steps take many times as
    long. Sleeping immediately costs a tenth to a fifth on a quiet machine; 10,000 turns cost nothing there and little
    beside other work (`benchmarks/results/contention.md`).
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["GOMP_SPINCOUNT"] = "10000"


def pool_size() -> int:
    """Return the worker processes of a preparation: nnU-Net's own setting if given, else one per CPU."""
    given = as_given().get(_PREPARING)
    return min(8, cpu_count()) if given is None else max(1, int(given))


def given_workers() -> int | None:
    """Return nnU-Net's own setting for the data-loader workers of a process; None if it is not given."""
    given = as_given().get(_LOADING)
    return None if given is None else int(given)


def as_given() -> dict[str, str]:
    """Return the environment without the numbers of processes that `prepare_environment` chose, for a child process."""
    environ = dict(os.environ)
    for name, (now, before) in _REPLACED.items():
        if environ.get(name) == now:
            environ.pop(name)
            if before is not None:
                environ[name] = before
    return environ


def prepare_environment(roots: Roots, processes: int = 1) -> None:
    """Point nnU-Net to its folders; keep its worker pools to this process's share of the CPUs.

    Call before importing torch or nnunetv2. Raises `BadInput` for a number of processes that is none, on which
    nnU-Net would fail when it is imported, and where no temporary file can be made.
    """
    check_numbers()
    choose_temporary_folder()
    let_waiting_threads_sleep()
    os.environ.update(roots.environment)
    cpus, given = max(1, min(8, cpu_count() // processes)), as_given()
    # The second one also keeps nnU-Net from asking a shell for the host's name at import.
    for name in (_PREPARING, _LOADING):
        before = given.get(name)
        # nnU-Net's planner fails with 0.
        os.environ[name] = str(cpus if before is None else max(1, int(before)))
        _REPLACED[name] = os.environ[name], before


def check_numbers() -> None:
    """Raise `BadInput` if one of nnU-Net's settings for numbers of processes is not a number."""
    for name in (_PREPARING, _LOADING):
        value = os.environ.get(name)
        if value is not None and not value.strip().isdecimal():
            raise BadInput(
                f"{name} is '{value}', not a number of processes", "the environment", f"correct or unset {name}"
            )


def launched(environ: Mapping[str, str]) -> int:
    """Return how many processes PyTorch's launcher (torchrun) started together with this one; 1 without it."""
    return int(environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in environ else 1
