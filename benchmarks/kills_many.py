"""Hundreds of kills as in `kills.py`, of a tiny training forked from a process that has imported everything.

    python benchmarks/kills_many.py --root DIR [--kills 200] [--seed 0] [--longest 2.5]

Kills (SIGKILL) the training process, one time in five one of its loader processes, at instants drawn from the seed:
three times in four counted from the beginning of the training, else from the process's start, which loads and restores.
Continues until this many fell into the training itself, that is between the events `run_started` and
`validation_started`. Continues each time; compares the final weights with those of an undisturbed training bit by bit,
and looks for processes and temporary files that are left. Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from ppgs.commands.prepare import prepare
from ppgs.commands.train.plan import create_run
from ppgs.nnunet.host.environment import prepare_environment
from ppgs.runs.events import Tail, read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots

_SCHEDULE = """
iterations_per_epoch: 1
validation: {iterations: 1}
stages:
  - {patch_size: [8, 8, 8], batch_size: 2, epochs: EPOCHS}
  - {patch_size: [16, 16, 16], batch_size: 2, epochs: EPOCHS}
  - {patch_size: [32, 32, 32], batch_size: 2, epochs: EPOCHS}
"""


_SET_CHILD_SUBREAPER = 36
_BEFORE, _TRAINING, _AFTER = "before the training", "in the training", "in the validation"


def start(run: RunFolder, roots: Roots) -> psutil.Process:
    """The training process, forked instead of started fresh: seconds of imports less."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        from ppgs.nnunet.process.leader import TrainingProcess

        os._exit(int(TrainingProcess(run, roots).main()))
    return psutil.Process(pid)


def starts_of(run: RunFolder) -> int:
    return sum(r["type"] == "run_started" for r in read_events(run.events))


def await_training(news: Tail, process: psutil.Process) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if any(r["type"] == "run_started" for r in news.read()):
            return
        time.sleep(0.01)


def phase_of(run: RunFolder, starts: int) -> str:
    """Return where the ended process was, when `starts` trainings had started before it."""
    records = read_events(run.events)
    began = [i for i, r in enumerate(records) if r["type"] == "run_started"]
    if len(began) == starts:
        return _BEFORE
    return _AFTER if any(r["type"] == "validation_started" for r in records[began[-1] :]) else _TRAINING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200, help="that fall into the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="of each of three stages")
    parser.add_argument("--longest", type=float, default=2.5, help="seconds until a kill, at most")
    parser.add_argument("--seconds", type=float, default=3600, help="no more kills after so long")
    given = parser.parse_args()
    # What a process that is killed leaves behind becomes this one's child, and is found in the end.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    schedule = given.root / "kills.yaml"
    schedule.parent.mkdir(parents=True, exist_ok=True)
    schedule.write_text(_SCHEDULE.replace("EPOCHS", str(given.epochs)))
    base = Roots.under(given.root)
    prepare_environment(base)
    prepare("demo", base, "nnUNetPlans", "3d_fullres", lambda *_: None)
    import ppgs.nnunet.trainer.trainer  # noqa: F401  (for the children)

    places = {name: Roots(base.raw, base.preprocessed, given.root / name) for name in ("whole", "killed")}
    asked = TrainingRequest(task="demo", schedule=str(schedule), device="cpu", workers=1, energy=False, overwrite=True)
    whole = next(places["whole"].results.glob("*/*/fold_0/checkpoint_final.pth"), None)
    runs = {"whole": RunFolder(whole.parent) if whole is not None else create_run(asked, 0, places["whole"])}
    runs["killed"] = create_run(asked, 0, places["killed"])
    began = time.monotonic()
    if whole is None:
        prepare_environment(places["whole"])
        assert start(runs["whole"], places["whole"]).wait() == 0
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    prepare_environment(places["killed"])
    rng, codes, began = random.Random(given.seed), Counter[int](), time.monotonic()
    kills = Counter[tuple[str, str]]()
    run, roots = runs["killed"], places["killed"]
    while True:
        news, starts = Tail(run.events), starts_of(run)
        while news.read():
            pass
        process = start(run, roots)
        inside = sum(count for (_, phase), count in kills.items() if phase == _TRAINING)
        more = inside < given.kills and time.monotonic() - began < given.seconds
        try:
            if more and rng.random() < 0.75:
                await_training(news, process)
            code = process.wait(rng.uniform(0, given.longest) if more else None)
        except psutil.TimeoutExpired:
            workers = process.children() if rng.random() < 0.2 else []
            if workers:
                # Recorded before it, as the training process may get further before it notices.
                victim = ("loader process", phase_of(run, starts))
                rng.choice(workers).kill()
                code = process.wait(900)
            else:
                process.send_signal(signal.SIGKILL)
                code = process.wait(900)
                victim = ("training process", phase_of(run, starts))
            kills[victim] += 1
            if kills.total() % 20 == 0:
                epochs = sum(r["type"] == "epoch_finished" for r in read_events(run.events))
                print(
                    f"{kills.total()} kills, {inside} {_TRAINING}, {epochs} epochs, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
        codes[int(code)] += 1
        if code == 0:
            break
        if code not in (-signal.SIGKILL, 75):
            sys.exit(f"ended with code {code} after {dict(kills)}")
    for (kind, phase), count in sorted(kills.items()):
        print(f"{kind} killed {phase}: {count}")
    tell(runs, kills.total(), codes)


def tell(runs: dict[str, RunFolder], kills: int, codes: Counter[int]) -> None:
    import torch

    weights = [torch.load(r.checkpoint_final, weights_only=True)["network_weights"] for r in runs.values()]
    same = all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    left = [p for p in runs["killed"].path.rglob("*") if ".part-" in p.name or p.name in ("lock", "reserve")]
    # Python's own tracker is this process's, from the preparation.
    alive = [
        p
        for p in psutil.Process().children(recursive=True)
        if p.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(p.cmdline())
    ]
    records = read_events(runs["killed"].events)
    trained = sum(r["type"] == "epoch_finished" for r in records)
    needed = sum(r["type"] == "epoch_finished" for r in read_events(runs["whole"].events))
    print(f"kills {kills}, exit codes {dict(codes)}, weights bit-equal: {same}")
    print(f"trainings started: {starts_of(runs['killed'])}; epochs trained again: {trained - needed}")
    print(f"files left: {len(left)}; processes left: {len(alive)}")
    sys.exit(0 if same and not left and not alive else 1)


if __name__ == "__main__":
    main()
