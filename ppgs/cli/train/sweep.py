"""Runs a sweep: one training after another, or several at a time, each on its own GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ppgs.cli.output import note, out, print_json, show_error, show_script, warn
from ppgs.cli.progress import PlainNarrator
from ppgs.cli.train.follow import Detached, note_all, run_training, signals_to
from ppgs.cli.train.sweep_table import record, show_sweep
from ppgs.commands.changes import changes_since
from ppgs.commands.slurm import script, submit
from ppgs.commands.train.child import TrainingChild
from ppgs.commands.train.sweep import Planned, as_sweep
from ppgs.errors import BadInput, ExitCode, PlansError, PpgsError
from ppgs.nvml import visible
from ppgs.runs.prepared import some
from ppgs.runs.state import RunState
from ppgs.runs.sweep import write_sweep
from ppgs.tasks import Roots


def run_sweep(
    planned: Sequence[Planned], roots: Roots, command: str, *, jobs: int | None, tui: bool, as_json: bool
) -> ExitCode:
    """Run the unfinished trainings of a sweep; one that fails does not stop the others.

    Returns the first failure's exit code, `STOPPED` when it was stopped.
    """
    sweep = as_sweep(planned, roots, command)
    write_sweep(roots.results, sweep)
    left = _to_do(planned, roots)
    together = _gpus(planned)
    slots = min(jobs or max(1, len(together)), max(1, len(left)))
    note(f"{sweep.name}: {len(planned)} trainings, {len(left)} to do" + (f", {slots} at a time" if slots > 1 else ""))
    code = (
        _one_by_one(left, roots, tui=tui, as_json=as_json)
        if slots == 1
        else _side_by_side(left, roots, slots, together)
    )
    if as_json:
        print_json(record(sweep, roots.results))
    else:
        show_sweep(sweep, roots.results)
    return code


def _gpus(planned: Sequence[Planned]) -> list[str]:
    """Return the GPUs of each of the trainings that may run at a time, one training for one GPU or `--gpus N`."""
    gpus = visible(os.environ) if planned[0].asked.device in ("auto", "cuda") else []
    each = planned[0].asked.gpus or 1
    return [",".join(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]


def check_sweep(planned: Sequence[Planned], roots: Roots, *, jobs: int | None) -> None:
    """Raise `BadInput` for trainings that follow one another and are all to end at the same time."""
    if (until := planned[0].asked.until) is None:
        return
    left = [one for one in planned if one.standing() in ("new", "continue")]
    at_a_time = jobs or max(1, len(_gpus(planned)))
    with suppress(PlansError):
        if any(one.follows(left, roots) for one in left):
            at_a_time = min(at_a_time, len(left) - 1)
    if len(left) > at_a_time:
        raise BadInput(
            f"{len(left)} trainings, {at_a_time} at a time, cannot all end at {until}",
            "--until",
            "give each a time of its own, such as --budget 2h",
        )


def detach_sweep(
    planned: Sequence[Planned], roots: Roots, command: str, arguments: Sequence[str], *, as_json: bool
) -> None:
    """Start the sweep as a separate process, which outlives this one."""
    sweep = as_sweep(planned, roots, command)
    log = write_sweep(roots.results, sweep).with_suffix(".log")
    again = [a for a in arguments if a != "--detach"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ppgs", *again, *([] if "--no-tui" in again else ["--no-tui"])],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    note(f"{sweep.name} trains in the background as process {process.pid}; 'ppgs runs' shows it, 'ppgs stop' ends it")
    note(f"its output: {log}")
    if as_json:
        print_json({"name": sweep.name, "output": str(log), "pid": process.pid})
    else:
        out.print(sweep.name)


def submit_sweep(
    planned: Sequence[Planned],
    roots: Roots,
    command: str,
    parameters: dict[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Submit the unfinished trainings to Slurm, or print the script that would be submitted."""
    left = _to_do(planned, roots)
    if dry_run:
        show_script(script(left, parameters, roots) if left else "", as_json=as_json)
        return
    if len(planned) > 1:
        write_sweep(roots.results, as_sweep(planned, roots, command))
    jobs = submit(left, parameters, roots) if left else []
    if as_json:
        print_json([{"name": job.name, "path": str(job.run.path), "job": job.job} for job in jobs])
        return
    for job in jobs:
        out.print(f"{job.name}: Slurm job {job.job}")
    note("'ppgs runs' and 'ppgs monitor' show how they go; 'scancel JOB' stops one with a checkpoint")


def _to_do(planned: Sequence[Planned], roots: Roots) -> list[Planned]:
    left = []
    older = []
    for one in planned:
        standing = one.standing()
        if standing == "finished" and changes_since(one.run, roots):
            older.append(one.manifest.name)
        if standing == "held":
            note(f"{one.manifest.name} is being trained or queued already, and left to that")
        elif standing != "finished":
            left.append(one)
    if older:
        warn(f"finished on data that have changed since; --overwrite trains again: {some(older)}")
    return left


def _one_by_one(left: Sequence[Planned], roots: Roots, *, tui: bool, as_json: bool) -> ExitCode:
    code = ExitCode.DONE
    for one in left:
        try:
            ended = run_training(one.claim(roots), roots, tui=tui, detach=False, as_json=as_json, result=not as_json)
        except Detached:
            note("the other trainings of the sweep have not been started; run the same command again to train them")
            return code
        except PpgsError as error:
            code = _told(one, error, code)
            continue
        if ended == ExitCode.STOPPED:
            return ended
    return code


class _Slot:
    """One training among several at a time, reported in lines that begin with its name."""

    def __init__(self, one: Planned, roots: Roots, gpu: str | None) -> None:
        environ = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        self.one, self.gpu = one, gpu
        self.child = TrainingChild(one.claim(roots), roots, detached=False, environ=environ)
        self._state = RunState()
        self._narrator = PlainNarrator(f"{one.manifest.name}: ")

    def tell(self) -> None:
        records = self.child.news()
        self._state.apply_all(records)
        self._narrator.update(self._state, records)
        note_all(f"{self.one.manifest.name}: {line}" for line in self.child.trackers.news())


def _side_by_side(left: list[Planned], roots: Roots, slots: int, gpus: list[str]) -> ExitCode:
    code, running, waiting = ExitCode.DONE, list[_Slot](), list(left)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for slot in running:
            slot.child.stop()

    with signals_to(stop), ExitStack() as started:
        while running or (waiting and not stopping):
            unfinished = [*(slot.one for slot in running), *waiting]
            for one in list(waiting) if len(running) < slots and not stopping else ():
                if len(running) == slots:
                    break
                # Only what comes before it in the sweep is waited for.
                earlier = unfinished[: unfinished.index(one)]
                if one.waits_for(earlier, roots):
                    continue
                waiting.remove(one)
                taken = [slot.gpu for slot in running]
                gpu = min(gpus, key=taken.count) if gpus else None
                try:
                    running.append(_Slot(one, roots, gpu))
                    started.enter_context(running[-1].child.saved_on_error())
                except PpgsError as error:
                    code = _told(one, error, code)
            for slot in list(running):
                ended = slot.child.process.poll() is not None
                slot.tell()
                if ended:
                    running.remove(slot)
                    slot.child.trackers.wait()
                    slot.tell()
                    try:
                        slot.child.raise_failure()
                    except PpgsError as error:
                        code = _told(slot.one, error, code)
                    if slot.child.process.returncode == ExitCode.STOPPED:
                        stopping = True
                        if (why := slot.child.stopped_by()) is not None:
                            _told(slot.one, why, code)
                    if stopping:
                        stop()
            time.sleep(0.2)
    return ExitCode.STOPPED if stopping else code


def _told(one: Planned, error: PpgsError, before: ExitCode) -> ExitCode:
    """Show why a training of the sweep failed; return the exit code of the first that did."""
    note(f"{one.manifest.name}:")
    show_error(error)
    return before or error.exit_code
