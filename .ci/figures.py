"""Draw the figures of the documentation with ppgs' own schedules: `docs/figures/*.svg`.

    python .ci/figures.py

Each file names a digest of what it shows; the test `tests/docs/test_figures.py` compares these digests with the current
schedules, so that a change of matplotlib does not make a figure stale and a change of a schedule does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import ppgs
from ppgs.schedule import Schedule

TASK = "Task04_Hippocampus"
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
COLOURS = {"efficiency": "#00796b", "performance": "#c2185b", "constant": "#616161", "pgps-2024": "#f57c00"}
Lines = dict[str, list[float]]


def schedules(*names: str) -> dict[str, Schedule]:
    return {name: ppgs.plan_schedule(TASK, name).schedule for name in names}


def patch() -> tuple[str, Lines]:
    """Size of the patch on each axis over the epochs."""
    schedule = schedules("efficiency")["efficiency"]
    sizes = [schedule.stage_at(epoch).patch_size for epoch in range(schedule.epochs)]
    return "patch size [voxels]", {f"axis {axis}": [float(s[axis]) for s in sizes] for axis in range(3)}


def voxels() -> tuple[str, Lines]:
    """Voxels of a batch over the epochs, relative to constant patch size."""
    found = schedules("efficiency", "performance", "pgps-2024", "constant")
    last = found["constant"].stages[-1]
    full = last.voxels * last.batch_size
    return "voxels in a batch ÷ constant", {
        name: [s.stage_at(e).voxels * s.stage_at(e).batch_size / full for e in range(s.epochs)]
        for name, s in found.items()
    }


def learning_rate() -> tuple[str, Lines]:
    """Learning rate over the epochs for both kinds of decay (initial value 0.01)."""
    schedule = schedules("efficiency")["efficiency"]
    by_work = schedule.changed(learning_rate={"decay": "work"})
    lines = {}
    for name, one in (("decay: epoch (default)", schedule), ("decay: work", by_work)):
        shares = [one.decay_epoch_at(epoch) / one.epochs for epoch in range(one.epochs)]
        lines[name] = [0.01 * (1 - share) ** 0.9 for share in shares]
    return "learning rate", lines


FIGURES = {"patch": patch, "voxels": voxels, "learning-rate": learning_rate}


def digest(content: tuple[str, Lines]) -> str:
    label, lines = content
    rounded = [label, {name: [float(f"{value:.6g}") for value in values] for name, values in lines.items()}]
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]


def draw(name: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "ppgs", "svg.fonttype": "none", "font.size": 10})
    label, lines = content = FIGURES[name]()
    steps = "default" if name == "learning-rate" else "steps-post"
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for index, (title, values) in enumerate(lines.items()):
        style: dict[str, Any] = {"color": COLOURS.get(title, f"C{index}")}
        axes.plot(range(1, len(values) + 1), values, label=title, drawstyle=steps, **style)
    axes.set(xlabel="epoch", ylabel=label, ylim=(0, None), title=f"{TASK}, 3d_fullres")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None, "Description": f"digest {digest(content)}"}
    figure.savefig(FOLDER / f"{name}.svg", metadata=metadata)
    pyplot.close(figure)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name in FIGURES:
        draw(name)


if __name__ == "__main__":
    main()
