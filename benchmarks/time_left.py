"""Accuracy of the estimated time left, replayed epoch by epoch from event logs.

    python benchmarks/time_left.py RUN_FOLDER_OR_EVENTS_FILE...

After every epoch the estimate is compared with the time that the run then really took until its end, without pauses;
only estimates after the first tenth of the epochs count. `former` is the law before this one, which knew the median
epoch of every measured stage and a fixed part of a tenth for the others, and left the final validation out: it is
compared with the end of the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

from ppgs.runs.events import Record, read_events
from ppgs.runs.state import RunState

# What a process does from its start until it trains is a pause for what came before.
_PAUSES = ("run_queued", "preparing", "run_started")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--each", action="store_true", help="print every estimate")
    asked = parser.parse_args()
    print("| run | law | estimates | median error | 90 % within | within 15 % | truth in the range | largest jump |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in asked.runs:
        replay(path, each=asked.each)


def replay(path: Path, *, each: bool) -> None:
    records = read_events(path if path.is_file() else path / "ppgs" / "events.jsonl")
    worked = working_seconds(records)
    trained = max(worked[i] for i, r in enumerate(records) if r["type"] == "epoch_finished")
    state, errors, former_errors, ranged, jumps = RunState(), [], [], [], []
    last: tuple[float, float] | None = None
    for record, at in zip(records, worked, strict=True):
        state.apply(record)
        left = state.left
        if record["type"] != "epoch_finished" or left is None or state.epoch <= state.epochs / 10:
            continue
        truth = worked[-1] - at
        if truth <= 0:
            continue
        errors.append(left.middle / truth - 1)
        ranged.append(left.low <= truth <= left.high)
        if trained > at:
            former_errors.append(former(state) / (trained - at) - 1)
        if last is not None:
            # By how much the predicted end moved, beside what was predicted to be left.
            jumps.append(abs(at + left.middle - last[0] - last[1]) / last[1])
        last = at, left.middle
        if each:
            print(f"{state.epoch:4} {truth:8.1f} {left.low:8.1f} {left.middle:8.1f} {left.high:8.1f} {errors[-1]:+.0%}")
    name = path.stem if path.is_file() else path.parent.name
    print(row(name, "new", errors) + f" {sum(ranged) / len(ranged):.0%} | {max(jumps, default=0):.0%} |")
    print(row(name, "former", former_errors) + " - | - |")


def row(name: str, law: str, errors: Sequence[float]) -> str:
    sizes = [abs(error) for error in errors]
    ninth = quantiles(sizes, n=10)[-1] if len(sizes) > 1 else sizes[0]
    share = sum(size <= 0.15 for size in sizes) / len(sizes)
    return f"| {name} | {law} | {len(sizes)} | {median(sizes):.1%} | {ninth:.0%} | {share:.0%} |"


def working_seconds(records: Sequence[Record]) -> list[float]:
    """Seconds of work up to every record."""
    worked, total, before = [], 0.0, None
    for record in records:
        if before is not None and record["type"] not in _PAUSES:
            total += max(record["time"] - before, 0.0)
        before = record["time"]
        worked.append(total)
    return worked


def former(state: RunState) -> float:
    """Return the training time left by the previous law."""
    stages, seconds = state.stages, {}
    for record in state.finished_epochs.values():
        seconds.setdefault(record["stage"], []).append(record["seconds"])
    known = {stage: sorted(values)[len(values) // 2] for stage, values in seconds.items()}
    points = [(stages[stage].work, value) for stage, value in known.items()]
    x_mean, y_mean = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0
    base = y_mean - slope * x_mean
    if len(points) < 3 or slope <= 0 or base < 0:
        latest, fixed = max(known), 0.1 * stages[-1].work
        slope = known[latest] / (stages[latest].work + fixed)
        base = slope * fixed
    left, first = 0.0, 0
    for index, stage in enumerate(stages):
        epochs = stage.epochs - min(max(state.epoch - first, 0), stage.epochs)
        left += epochs * known.get(index, base + slope * stage.work)
        first += stage.epochs
    return left


if __name__ == "__main__":
    main()
