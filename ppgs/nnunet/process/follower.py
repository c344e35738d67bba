"""Processes that train a run together, started by PyTorch's launcher (torchrun, or `ppgs.nnunet.process.launch`).

The first one (rank 0) does all that one process does alone, and it alone writes. The others wait until the training is
prepared, compute their part, and end when the first one does.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from ppgs.errors import ExitCode, PpgsError, RankLost, StoppedEarly
from ppgs.nnunet.distributed.ranks import ProcessGroup
from ppgs.nnunet.host.environment import prepare_environment
from ppgs.nnunet.process.leader import TrainingProcess
from ppgs.processes.pool import watched_pools
from ppgs.processes.signals import guarded_forks
from ppgs.processes.stop import Stop
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots

# Seconds that other processes have after the first has ended, to report their errors.
_GRACE_SECONDS = 5.0


def work_together(run: RunFolder, roots: Roots) -> ExitCode:
    """Do this process's part of a run, given by the launcher's environment; return the exit code."""
    try:
        ranks = ProcessGroup(os.environ)
    except PpgsError as error:
        with suppress(OSError):
            sys.stderr.write(f"{error}\n")
        return error.exit_code
    if ranks.rank == 0:
        prepare_environment(roots, ranks.local_count)
        code = TrainingProcess(run, roots, ranks).main()
        if code is ExitCode.DONE:
            ranks.leave()
        # If that fails, the launcher and the other processes are gone.
        with suppress(PpgsError):
            ranks.end()
        return code
    return _follow(run, roots, ranks)


def _follow(run: RunFolder, roots: Roots, ranks: ProcessGroup) -> ExitCode:
    stop = Stop(lambda _: os._exit(ExitCode.STOPPED))
    stop.install()
    # nnU-Net's logs and copies of plans, which the first process writes into the run.
    scratch = run.own / "ranks" / str(ranks.rank)
    prepare_environment(Roots(roots.raw, roots.preprocessed, scratch), ranks.local_count)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    threading.Thread(target=_end_with_the_first, args=(ranks,), daemon=True).start()
    try:
        with guarded_forks(), watched_pools():
            _train(run, ranks, stop)
    except PpgsError as error:
        _report(ranks, error)
        return error.exit_code
    except BaseException as error:
        traceback.print_exc()
        what = f"{type(error).__name__} in process {ranks.rank}: {error}"
        _report(ranks, PpgsError(what, run.log, "the log has the details; 'ppgs resume' continues"))
        return ExitCode.STOPPED if stop.reason is not None else ExitCode.UNFORESEEN
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ExitCode.DONE


def _train(run: RunFolder, ranks: ProcessGroup, stop: Stop) -> None:
    text = ranks.wait()
    if text is None:
        return
    from ppgs.nnunet.host.energy import EnergyMeter
    from ppgs.nnunet.process.session import Session
    from ppgs.nnunet.trainer.factory import Job

    energy = EnergyMeter(run.path, enabled=False)
    session = Session(Job.model_validate_json(text), run, ranks, stop, emit=lambda *_, **__: None, energy=energy)
    session.begin(None, run.path)
    session.train()
    session.validate(run)
    ranks.leave()


def _report(ranks: ProcessGroup, error: PpgsError) -> None:
    # All ranks get stop requests and notice a lost rank; any other error is known only to this rank.
    if type(error) not in (StoppedEarly, RankLost):
        with suppress(PpgsError):
            ranks.report(error)


def _end_with_the_first(ranks: ProcessGroup) -> None:
    with suppress(PpgsError):
        while not ranks.has_ended():
            time.sleep(1.0)
    time.sleep(_GRACE_SECONDS)
    os._exit(ExitCode.DONE)
