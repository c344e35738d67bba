"""Common part of `train` and `resume`: start the training process, show progress, pass signals on, report the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType

from ppgs.cli.output import note, out, print_json, show_error
from ppgs.cli.progress import narrator
from ppgs.commands import torchrun
from ppgs.commands.monitor import RunControl
from ppgs.commands.train.child import TrainingChild
from ppgs.errors import ExitCode
from ppgs.formatting import counted, dice_text, duration
from ppgs.processes.signals import heard
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import command
from ppgs.runs.state import RunState
from ppgs.tasks import Roots


def run_training(
    run: RunFolder, roots: Roots, *, tui: bool, detach: bool, as_json: bool, result: bool = True
) -> ExitCode:
    """Train a run until it finishes or is stopped; return the exit code, or raise the error of the training.

    Its `result` is printed last, and is all that goes to stdout.
    """
    name = read_manifest(run).name
    watched = tui and not detach and not as_json and all(f.isatty() for f in (sys.stdin, sys.stdout, sys.stderr))
    watched = watched and not torchrun.is_under(os.environ)
    if watched:
        # Imported before anything is started, so that a broken installation costs no training.
        from ppgs.tui.app import watch
    child = TrainingChild(run, roots, detached=detach or watched)
    if detach:
        note(
            f"{name} trains in the background as process {child.process.pid}; 'ppgs runs' shows it, 'ppgs stop' ends it"
        )
        if as_json:
            print_json({"name": name, "path": str(run.path), "pid": child.process.pid})
        else:
            out.print(name)
        return ExitCode.DONE
    note(f"{name}: {run.path}")
    quiet = False
    if watched:
        control = RunControl(roots, child)
        try:
            outcome, _ = watch([run], control, own=True)
        except KeyboardInterrupt:
            child.stop()
            outcome = None
        child = control.children[run]
        if outcome == "left" and control.works_on(run):
            note(f"{name} trains on as process {child.process.pid}; come back with: {command('monitor', run, name)}")
            raise Detached
        # A monitor that crashed does not touch the training, which is then followed without it.
        quiet = outcome is not None
    state = RunState().apply_all(read_events(run.events))
    if child.process.poll() is None:
        state.status = "preparing"
    live = tui and not watched and sys.stderr.isatty()
    with signals_to(child.stop), child.saved_on_error(), narrator(live=live) as narrate:
        for records in child.follow():
            state.apply_all(records)
            if not quiet:
                narrate.update(state, records)
                note_all(child.trackers.news())
    with signals_to(child.trackers.kill, "no longer waiting for the trackers"):
        child.trackers.wait()
    note_all(child.trackers.news())
    child.raise_failure()
    if child.process.returncode == ExitCode.STOPPED:
        if (stop := child.stopped_by()) is not None:
            show_error(stop)
        note(f"{state.reason or 'stopped'}; continue with: {command('resume', run, name)}")
        return ExitCode.STOPPED
    if result:
        tell_result(run, state, as_json=as_json)
    return ExitCode.DONE


def note_all(lines: Iterable[str]) -> None:
    for line in lines:
        note(line)


def join_training(run: RunFolder, roots: Roots) -> int:
    """Take part in a training that another torchrun process leads; return the exit code."""
    process = torchrun.start_follower(run, roots)
    with signals_to(process.terminate):
        code = process.wait()
    return code if code >= 0 else int(ExitCode.UNFORESEEN)


class Detached(Exception):
    """Raised when the monitor is closed while the training continues."""


class signals_to:
    """Within the block, have stop signals call `stop`, so that the training process saves and ends."""

    def __init__(self, stop: Callable[[], object], reply: str = "stopping with a checkpoint") -> None:
        self._stop, self._reply = stop, reply
        self._before: dict[int, object] = {}

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._stop()
        # What is being printed meanwhile cannot be interrupted by printing.
        with suppress(RuntimeError):
            note(f"{signal.Signals(number).name}: {self._reply}")

    def __enter__(self) -> None:
        # An ignored SIGINT only says that a shell script started us.
        for number in heard():
            self._before[number] = signal.signal(number, self._pass_on)

    def __exit__(self, *_: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)  # type: ignore[arg-type]


def tell_result(run: RunFolder, state: RunState, *, as_json: bool) -> None:
    """Print the result of a finished run: lines for people on stderr, or JSON on stdout."""
    manifest = read_manifest(run)
    seconds = sum(float(r.get("seconds") or 0) for r in state.finished_epochs.values())
    if as_json:
        print_json(
            {
                "name": manifest.name,
                "path": str(run.path),
                "status": manifest.status,
                "stages": len(state.stages),
                "epochs": state.epochs,
                "training_seconds": seconds,
                "mean_dice": state.mean_dice,
                "dice_per_class": state.dice,
            }
        )
        return
    out.print(f"{manifest.name}: validation {dice_text(state.mean_dice, state.dice or {})}", markup=False)
    note(f"trained {counted(state.epochs, 'epoch')} in {counted(len(state.stages), 'stage')}, {duration(seconds)}")
    note(f"segment images with: {command('predict', run, manifest.name)} -i IMAGES -o SEGMENTATIONS")
