"""`plan-schedule --plot`: patch volume, memory and learning rate over the epochs, as a picture."""

from __future__ import annotations

from pathlib import Path

from ppgs.errors import BadInput
from ppgs.estimate.cost import Estimate
from ppgs.estimate.memory import GIB
from ppgs.formatting import spaced


def draw(estimate: Estimate, title: str, path: Path) -> None:
    """Draw to `path` (.svg, .png, .pdf); raises `BadInput` if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = [s.first_epoch for s in estimate.stages] + [estimate.schedule.epochs]
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    volume, memory, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    volume.stairs([s.stage.voxels / 1e6 for s in estimate.stages], edges, fill=True, color="#4c78a8")
    volume.set_ylabel("patch volume\n(million voxels)")
    last = None
    for cost in estimate.stages:
        middle = cost.first_epoch + cost.stage.epochs / 2
        if last is None or middle - last > estimate.schedule.epochs / 12:
            text = f"{spaced(cost.stage.patch_size)}\nbatch {cost.stage.batch_size}"
            volume.annotate(
                text,
                (middle, cost.stage.voxels / 1e6),
                ha="center",
                va="bottom",
                fontsize=6,
                xytext=(0, 2),
                textcoords="offset points",
            )
            last = middle
    volume.margins(y=0.25)
    volume.set_ylim(bottom=0)
    for name, color, values in (
        ("expected", "#f58518", [s.memory.expected for s in estimate.stages]),
        ("at least", "#e45756", [s.memory.floor for s in estimate.stages]),
        ("live tensors", "#72b7b2", [s.memory.live for s in estimate.stages]),
    ):
        memory.stairs([v / GIB for v in values], edges, color=color, label=name, linewidth=1.6, baseline=None)
    if estimate.machine.limit is not None:
        memory.axhline(estimate.machine.limit / GIB, color="black", linestyle="--", linewidth=1, label="limit")
    memory.set_ylabel("GPU memory (GiB)")
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    schedule = estimate.schedule
    rate.stairs(
        [schedule.learning_rate_at(epoch) for epoch in range(schedule.epochs)],
        range(schedule.epochs + 1),
        color="#54a24b",
        linewidth=1.6,
        baseline=None,
    )
    rate.set_ylabel("learning rate\n(initial = 1)")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("epoch")
    for axes in (volume, memory, rate):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, estimate.schedule.epochs)
    figure.suptitle(title, fontsize=11)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as problem:
        raise BadInput(f"cannot be written: {problem.strerror or problem}", path) from None
