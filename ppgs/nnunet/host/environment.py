"""Settings that must precede the import of torch and nnunetv2: folders, process counts, how threads wait."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ppgs.errors import BadInput
from ppgs.processes.limits import cpu_count
from ppgs.processes.temporary import choose_temporary_folder
from ppgs.tasks import Roots

# Read before `prepare_environment` sets it.
_GIVEN = os.environ.get("nnUNet_def_n_proc", "")


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
    return max(1, int(_GIVEN)) if _GIVEN.isdecimal() else min(8, cpu_count())


def prepare_environment(roots: Roots, processes: int = 1) -> None:
    """Point nnU-Net to its folders; keep its worker pools to this process's share of the CPUs.

    Call before importing torch or nnunetv2. Raises `BadInput` for a number of processes that is none, on which
    nnU-Net would fail when it is imported, and where no temporary file can be made.
    """
    _check_numbers()
    choose_temporary_folder()
    let_waiting_threads_sleep()
    os.environ.update(roots.environment)
    cpus = str(max(1, min(8, cpu_count() // processes)))
    os.environ.setdefault("nnUNet_def_n_proc", cpus)
    # Also keeps nnU-Net from asking a shell for the host's name at import.
    os.environ.setdefault("nnUNet_n_proc_DA", cpus)


def _check_numbers() -> None:
    for name in ("nnUNet_def_n_proc", "nnUNet_n_proc_DA"):
        value = os.environ.get(name)
        if value is not None and not value.strip().isdecimal():
            raise BadInput(
                f"{name} is '{value}', not a number of processes", "the environment", f"correct or unset {name}"
            )


def launched(environ: Mapping[str, str]) -> int:
    """Return how many processes PyTorch's launcher (torchrun) started together with this one; 1 without it."""
    return int(environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in environ else 1
