"""Questions of `train`: which task to train, and whether to start hours of work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ppgs.cli import ask
from ppgs.cli.output import err, note
from ppgs.cli.plan_table import show
from ppgs.commands.train.preview import Preview, iterations_of, preview, take_long
from ppgs.commands.train.sweep import Planned
from ppgs.formatting import duration, time_left
from ppgs.runs.time_left import Span
from ppgs.tasks import DEMO, DEMO_DATASET, Roots

FIRST_TASK = (
    "start with the demo: ppgs train demo; for a folder of images and one of labels, first: "
    "ppgs prepare --images DIR --labels DIR --name NAME"
)


def choose_task(roots: Roots) -> str:
    """Return the task that a person picks: the demo, a dataset found here, or a Decathlon folder of this folder."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "task", ""):
        table.add_column(heading)
    known = {DEMO: "synthetic, made on the spot; minutes on a CPU"}
    for name in roots.datasets():
        if name != DEMO_DATASET:
            prepared = any((roots.preprocessed / name).glob("*Plans*.json"))
            known[name] = "prepared" if prepared else "not prepared yet"
    for folder in sorted(Path().glob("Task[0-9]*_*")):
        if (folder / "dataset.json").is_file():
            known[folder.name] = "Decathlon folder"
    for number, (name, told) in enumerate(known.items(), 1):
        table.add_row(str(number), name, f"[dim]{told}[/]")
    if len(known) == 1:
        note("data of your own become a task with: ppgs prepare --images DIR --labels DIR --name NAME")
    return ask.choose(list(known), table, "task to train")[0]


def may_begin(planned: Sequence[Planned], roots: Roots) -> bool:
    """Show what would be trained; if that may take hours, ask whether to start (else return True)."""
    # A budget already sets the length.
    new = [one for one in planned if one.standing() == "new" and one.asked.budget is one.asked.until is None]
    # With so little to do even a slow machine needs no estimate.
    if sum(map(iterations_of, new)) < 2000:
        return True
    with err.status("estimating what this costs"):
        previews = preview(new, roots)
    if not take_long(previews):
        return True
    _tell(previews)
    whole = _together(previews)
    runs = f"{len(new)} trainings, {whole} one after another" if len(new) > 1 else f"this takes {whole}"
    if ask.agree(f"{runs}: begin?"):
        return True
    note("nothing was started")
    return False


def _together(previews: Sequence[Preview]) -> str:
    """Return the time of all trainings in words."""
    known = [one.seconds for one in previews if one.seconds is not None]
    rough = [one.uncalibrated for one in previews if one.uncalibrated is not None]
    if len(known) + len(rough) < len(previews):
        return "hours, as far as is known"
    if not rough:
        return f"about {duration(sum(known))}"
    measured = sum(known)
    return time_left(sum(rough, start=Span(measured, measured, measured)))


def _tell(previews: Sequence[Preview]) -> None:
    if len(previews) == 1 and previews[0].cost is not None:
        show(previews[0].cost, err, plain=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("training", "folds", "stages", "iterations", "memory", "time"):
        table.add_column(heading, justify="left" if heading == "training" else "right")
    for one in previews:
        name = one.trainings[0].manifest.name.rsplit("-fold", 1)[0]
        cost = one.cost.estimate if one.cost is not None else None
        table.add_row(
            name,
            str(len(one.trainings)),
            "-" if cost is None else str(len(cost.stages)),
            str(one.iterations),
            "-" if cost is None else f"{cost.peak_memory / 2**30:.1f} GiB",
            duration(one.seconds) if one.uncalibrated is None else time_left(one.uncalibrated),
        )
    err.print(table)
    if any(one.cost is None for one in previews):
        note("what is not prepared yet is prepared first; its cost is known after that")
