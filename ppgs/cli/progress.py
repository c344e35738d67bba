"""Shows a training's progress, read from the event log: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ppgs.cli.output import err, note, warn
from ppgs.formatting import counted, duration, patch_text, size, time_left
from ppgs.runs.events import Record
from ppgs.runs.state import RunState


class Narrator(Protocol):
    """Receives every batch of new records, including empty ones."""

    def update(self, state: RunState, records: list[Record]) -> None: ...


def describe_epoch(state: RunState, record: Record) -> str:
    """Return one line about a finished epoch."""
    stage = state.stages[record["stage"]]
    dice = record.get("ema_dice")
    return (
        f"epoch {record['epoch'] + 1}/{state.epochs}  stage {record['stage'] + 1}/{len(state.stages)} "
        f"{patch_text(stage.patch_size)} b{stage.batch_size}  loss {_number(record.get('train_loss'))} "
        f"val {_number(record.get('val_loss'))}  pseudo Dice {_number(dice)}  "
        f"{record['seconds']:.1f}s  left {time_left(state.left)}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


class PlainNarrator:
    """Prints one line per notable record, for logs and pipes; each line begins with `prefix`."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._step: str | None = None

    def update(self, state: RunState, records: list[Record]) -> None:
        for record in records:
            kind = record["type"]
            if kind == "preparing" and (record.get("step") != self._step or record["done"] == record["total"] > 0):
                self._step = record.get("step")
                self._note(f"{self._step}" + (f" {record['done']}/{record['total']}" if record["total"] else ""))
            elif kind == "run_started":
                begun = f"continues at epoch {record['epoch'] + 1}" if record["resumed"] else "starts"
                ends = record.get("budget")
                epochs = "as many epochs as fit" if ends is not None else f"{record['epochs']} epochs"
                iterations = record["iterations_per_epoch"]
                self._note(
                    f"training {begun}: {epochs} of {counted(iterations, 'iteration')} in "
                    f"{counted(len(record['stages']), 'stage')} on {record['device']}"
                )
            elif kind == "budget_planned":
                left, final = (record.get(f"{name}_seconds") for name in ("left", "validation"))
                self._note(
                    f"planned from epoch {record['epoch'] + 1}: the first stage measures what an epoch costs"
                    if left is None
                    else f"planned from epoch {record['epoch'] + 1}: {record['epochs']} epochs fit; left are "
                    f"{duration(max(left, 0))} of training and {duration(max(final or 0, 0))} of final validation"
                )
            elif kind == "early_stopping":
                self._note(
                    f"training ends early: no better moving average of Dice since epoch {record['best_epoch'] + 1} "
                    f"(--patience {record['patience']})"
                )
            elif kind == "epoch_finished":
                self._note(describe_epoch(state, record))
            elif kind == "validation_started" and record["cases"] is not None:
                self._note(f"validating {record['cases']} cases")
            elif kind == "warning":
                warn(self._prefix + str(record.get("message")))

    def _note(self, message: str) -> None:
        note(self._prefix + message)


class LiveNarrator:
    """Draws progress bars of the epoch and of the whole training."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._whole = progress.add_task("starting", total=None)
        self._part = progress.add_task("", total=None, visible=False)

    def update(self, state: RunState, records: list[Record]) -> None:
        for record in records:
            if record["type"] == "warning":
                warn(str(record.get("message")))
        bar = self._progress
        if state.status == "preparing":
            bar.update(
                self._whole, description=state.step or "starting", completed=state.done, total=state.total or None
            )
        elif state.status == "validating":
            left = f"validating  left {time_left(state.left)}"
            bar.update(self._whole, description=left, completed=state.done, total=state.total or None)
            bar.update(self._part, visible=False)
        elif state.status == "training" and state.stages:
            stage = state.stages[state.stage]
            last = state.last_epoch or {}
            bar.update(
                self._whole,
                description=f"stage {state.stage + 1}/{len(state.stages)} {patch_text(stage.patch_size)} "
                f"b{stage.batch_size}  Dice {_number(last.get('ema_dice'))}  left {time_left(state.left)}",
                completed=state.epoch,
                total=state.epochs,
            )
            bar.update(
                self._part,
                visible=True,
                description=f"{'validation' if state.phase == 'validation' else 'epoch'}  loss {_number(state.loss)}",
                completed=state.iteration,
                total=state.iterations or None,
            )


@contextmanager
def narrator(*, live: bool) -> Iterator[Narrator]:
    """Yield the narrator that suits stderr: live on a terminal, else plain."""
    if not live:
        yield PlainNarrator()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield LiveNarrator(progress)


class StepReporter:
    """Turns `report(step, done, total)` into records for a narrator."""

    def __init__(self, chosen: Narrator) -> None:
        self._narrator = chosen
        self._state = RunState()

    def __call__(self, step: str, done: int, total: int) -> None:
        record: Record = {"type": "preparing", "time": time.time(), "step": step, "done": done, "total": total}
        self._state.apply(record)
        self._narrator.update(self._state, [record])


@contextmanager
def byte_reporter() -> Iterator[Callable[[str, int, int], None]]:
    """Yield `report(step, done, total)` in bytes: a bar on a terminal, else a line per tenth."""
    if not err.is_terminal:
        told: tuple[str, int] | None = None

        def line(step: str, done: int, total: int) -> None:
            nonlocal told
            tenth = done * 10 // total if total else 0
            if told != (step, tenth):
                told = (step, tenth)
                note(f"{step} {size(done)} of {size(total)}" if total else step)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as progress:
        task = progress.add_task("connecting", total=None)

        def bar(step: str, done: int, total: int) -> None:
            if progress.tasks[task].description != step:
                progress.reset(task, description=step)
            progress.update(task, completed=done, total=total or None)

        yield bar
