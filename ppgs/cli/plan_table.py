"""Terminal output of `plan-schedule`: table of stages, totals and a small plot."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ppgs.cli.plan_plot import step_plot
from ppgs.commands.plan_schedule import Measured, Result
from ppgs.estimate.cost import Estimate, StageCost
from ppgs.estimate.memory import GIB, Verdict
from ppgs.formatting import ENERGY, amount, duration, spaced, time_left
from ppgs.runs.time_left import Span
from ppgs.schedule import Stage

_STYLES = {Verdict.FITS: "green", Verdict.TRY: "yellow", Verdict.NOT: "red"}
# Read without colour, too.
_MARKS = {Verdict.FITS: "fits", Verdict.TRY: "try", Verdict.NOT: "NO"}
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int) -> str:
    """Return a bar of `width` characters; a share above one fills it and ends in an arrow."""
    if share > 1:
        return "█" * (width - 1) + "▶"
    eighths = round(max(share, 0.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width, "·")


def flops(count: float) -> str:
    for size, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MFLOP"


def memory(size: int) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"


def show(result: Result, console: Console, *, plain: bool = False) -> None:
    """Print the whole result; `plain` leaves out the plot, for pipes."""
    estimate, facts = result.estimate, result.subject.facts
    machine = estimate.machine
    console.print(
        f"[bold]{escape(result.subject.task)}[/]  {escape(facts.configuration)}, {escape(facts.plans)}, "
        f"schedule [bold]{escape(result.schedule.name)}[/]: {result.schedule.epochs} epochs "
        f"of {result.schedule.iterations_per_epoch} iterations"
    )
    if (rate := result.schedule.learning_rate.text) is not None:
        console.print(f"learning rate {rate}")
    if machine.limit is not None:
        console.print(f"memory to fit in: {memory(machine.limit)} GiB ({escape(machine.name or '')})")
    for change in result.changes:
        console.print(f"changed: {escape(change)}")
    console.print(_table(estimate, result.measured, min(console.width, 140)))
    _totals(result, console)
    if not plain and len(estimate.stages) > 1:
        _plots(estimate, console)
    for note in result.notes:
        console.print(f"[dim]{escape(note)}[/]")


def _table(estimate: Estimate, measured: tuple[Measured, ...], width: int) -> Table:
    narrow = width < 110
    rough = estimate.rough_seconds is not None
    timed, limited = estimate.seconds is not None or rough, estimate.machine.limit is not None
    # Measured values replace the bars if there is no room for both.
    bars = not (measured and width < 140)
    cells = 8 if narrow or measured else 20
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), header_style="bold", width=None)
    table.add_column("#", justify="right", style="dim")
    table.add_column("patch", justify="right", no_wrap=True)
    table.add_column("batch", justify="right", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    if bars:
        table.add_column("of limit" if limited else "of peak", no_wrap=True)
    if limited:
        table.add_column("", no_wrap=True)
    if bars:
        table.add_column("FLOP/it", justify="right", no_wrap=True)
    if timed:
        # A tilde: a figure that is the middle of an uncalibrated range.
        table.add_column("~" * rough + ("s/it" if narrow else "s/iteration"), justify="right", no_wrap=True)
    if bars:
        table.add_column("time" if timed else "FLOPs", no_wrap=True)
    if measured:
        table.add_column("~" * rough + ("s/epoch" if narrow else "s/epoch estimated"), justify="right", no_wrap=True)
        table.add_column("real", justify="right", no_wrap=True)
        table.add_column("GiB real", justify="right", no_wrap=True)
    by_stage = {m.stage: m for m in measured}
    whole = sum(_work(s) for s in estimate.stages)
    limit = estimate.machine.limit or estimate.peak_memory
    for i, cost in enumerate(estimate.stages):
        style = _STYLES[cost.verdict]
        row = [
            str(i + 1),
            spaced(cost.stage.patch_size),
            _batch(cost.stage),
            str(cost.stage.epochs),
            memory(cost.memory.expected),
        ]
        if bars:
            row.append(f"[{style}]{bar(cost.memory.expected / limit, cells)}[/]")
        if limited:
            row.append(f"[{style}]{_MARKS[cost.verdict]}[/]")
        if bars:
            row.append(flops(cost.flops).replace("FLOP", ""))
        if timed:
            row.append(_short(cost.seconds, cost.rough))
        if bars:
            share = _work(cost) / whole
            row.append(f"[cyan]{bar(share, cells)}[/] {share:4.0%}")
        if measured:
            row += _compared(cost, by_stage.get(i))
        table.add_row(*row)
    return table


def _batch(stage: Stage) -> str:
    marks = f"{stage.batch_size}"
    if stage.accumulation > 1:
        marks += f" in {stage.accumulation}"
    return marks + (" ckpt" if stage.checkpointing else "")


def _work(cost: StageCost) -> float:
    total = cost.total_seconds
    if total is None and cost.rough_epoch is not None:
        total = cost.rough_epoch.middle * cost.stage.epochs
    return cost.flops * cost.stage.epochs if total is None else total


def _short(seconds: float | None, rough: Span | None) -> str:
    """Return the estimated seconds as text, or the middle of an uncalibrated range."""
    value = seconds if seconds is not None or rough is None else rough.middle
    return "-" if value is None else f"{value:.3g}"


def _compared(cost: StageCost, measured: Measured | None) -> list[str]:
    estimated = _short(cost.epoch_seconds, cost.rough_epoch)
    if measured is None:
        return [estimated, "-", "-"]
    seconds = "-" if measured.seconds is None else f"{measured.seconds:.3g}"
    if measured.seconds and cost.epoch_seconds is not None:
        seconds += f" ({cost.epoch_seconds / measured.seconds - 1:+.0%})"
    return [estimated, seconds, "-" if measured.memory is None else memory(measured.memory)]


def _totals(result: Result, console: Console) -> None:
    estimate = result.estimate
    relative = estimate.relative
    peak = max((s.memory for s in estimate.stages), key=lambda m: m.expected)
    console.print(
        f"peak memory  [bold]{memory(peak.expected)} GiB[/] expected "
        f"(live tensors {memory(peak.live)}, runs from {memory(peak.floor)})"
    )
    others = [f"validation {memory(estimate.validation_memory)} GiB"]
    if estimate.inference_memory is not None:
        others.append(f"inference of a median image {memory(estimate.inference_memory)} GiB")
    console.print(f"             {', '.join(others)}")
    total = [flops(estimate.total_flops)]
    if estimate.seconds is not None:
        total.append(duration(estimate.seconds))
    elif estimate.rough_seconds is not None:
        total.append(time_left(estimate.rough_seconds))
    if estimate.energy_wh is not None:
        total.append(amount(estimate.energy_wh, ENERGY))
    console.print(f"whole run    {', '.join(total)}")
    ratio = [f"{relative.voxels:.3f} of the voxels", f"{relative.flops:.3f} of the FLOPs"]
    if relative.time is not None:
        ratio.append(f"[bold]{relative.time:.3f} of the time[/]")
    elif (share := relative.rough_time) is not None:
        ratio.append(f"about {share.middle:.2f} of the time (uncalibrated)")
    console.print(f"against constant patch size: {', '.join(ratio)}")


def _plots(estimate: Estimate, console: Console) -> None:
    width = (min(console.width, 140) - 4) // 2 - 8
    epochs = [s.stage.epochs for s in estimate.stages]
    voxels = step_plot(epochs, [s.stage.voxels / 1e6 for s in estimate.stages], width, 5)
    gibs = step_plot(epochs, [s.memory.expected / GIB for s in estimate.stages], width, 5)
    titles = ("patch volume, million voxels", "memory, GiB")
    console.print()
    console.print("  ".join(f"{title:<{width + 8}}" for title in titles).rstrip())
    for left, right in zip(voxels, gibs, strict=True):
        console.print(f"[cyan]{left:<{width + 8}}[/]  [magenta]{right}[/]".rstrip())
