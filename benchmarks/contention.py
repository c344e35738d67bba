"""Cost of other work beside a training on the CPU, and possible remedies.

    python benchmarks/contention.py --root DIR [--variants default,ppgs] [--loads alone,busy1,training] [--rounds 3]

Every variant is a process that takes training steps of the demo's last stage as `ppgs train` does, with the variant's
environment. One takes steps at a time, in turn, so that a machine whose speed changes changes all; the others sleep.
`busyK` runs K processes that count, `training` another process of the same variant that trains all the time. Prints
seconds a step of every variant under every load (the median of the rounds), the ratio to `default` alone, and the CPU
seconds a step, which tell waiting actively from waiting asleep. `--what predict` takes windows of inference instead,
`--what batches` makes batches.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

VARIANTS: dict[str, dict[str, str]] = {
    "default": {"CONTENTION_DEFAULT": "1"},
    "ppgs": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin-0": {"GOMP_SPINCOUNT": "0"},
    "spin-1000": {"GOMP_SPINCOUNT": "1000"},
    "spin-10000": {"GOMP_SPINCOUNT": "10000"},
    "1-thread": {"CONTENTION_DEFAULT": "1", "CONTENTION_THREADS": "1"},
    "pinned": {"CONTENTION_DEFAULT": "1", "OMP_PROC_BIND": "true", "OMP_PLACES": "cores"},
    "pinned-ppgs": {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"},
    "batch": {"CONTENTION_DEFAULT": "1", "CONTENTION_POLICY": "batch"},
    "nice": {"CONTENTION_DEFAULT": "1", "CONTENTION_NICE": "5"},
}


class Worker:
    """A process of one variant that waits for instructions."""

    def __init__(self, variant: str, root: Path, stage: int) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | VARIANTS[variant]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--root", str(root), "--stage", str(stage), "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        self.begin("ready", 0)

    def begin(self, what: str, steps: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {steps}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                sys.exit("a worker has ended")
        result: dict[str, Any] = json.loads(line)
        return result

    def say(self, what: str, steps: int) -> dict[str, Any]:
        self.begin(what, steps)
        return self.answer()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def work(root: Path, stage: int) -> None:
    """The worker's side."""
    if os.environ.get("CONTENTION_POLICY") == "batch":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(int(os.environ.get("CONTENTION_NICE", "0")))
    trainer = make_trainer(root, stage)
    import torch

    if threads := int(os.environ.get("CONTENTION_THREADS", "0")):
        torch.set_num_threads(threads)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batches = trainer.dataloader_train
    window = torch.zeros(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size)

    def take(what: str) -> None:
        if what == "train":
            trainer.train_step(next(batches))
        elif what == "batches":
            next(batches)
        elif what == "predict":
            with torch.inference_mode():
                trainer.network(window)

    for _ in range(2):
        take("train")
    for line in sys.stdin:
        what, steps = line.split()
        if what == "forever":
            print("{}", flush=True)
            # Ends with the process, which the other side stops and kills.
            while True:
                take("train")
        # The first step finds cold caches.
        if int(steps):
            take(what)
        started, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(steps)):
            take(what)
        each = max(int(steps), 1)
        found = {"seconds": (time.perf_counter() - started) / each, "cpu": (time.process_time() - cpu) / each}
        print(json.dumps(found), flush=True)


def make_trainer(root: Path, stage: int) -> Any:
    from ppgs.nnunet.host.environment import prepare_environment
    from ppgs.tasks import DEMO_DATASET, Roots

    roots = replace(Roots.choose(root, os.environ), results=root / "contention")
    prepare_environment(roots)
    if "CONTENTION_DEFAULT" in os.environ:
        # What the runtime does where ppgs sets nothing.
        os.environ.pop("GOMP_SPINCOUNT", None)
    import torch

    from ppgs.nnunet.host.devices import default_workers, set_threads
    from ppgs.nnunet.host.energy import EnergyMeter
    from ppgs.nnunet.host.malloc import keep_released_memory
    from ppgs.nnunet.trainer.factory import build_trainer
    from ppgs.nnunet.trainer.settings import Settings
    from ppgs.plans import load_plans
    from ppgs.runs.folder import RunFolder
    from ppgs.schedule import PlanFacts, Recipe, resolve

    device = torch.device("cpu")
    set_threads(device)
    keep_released_memory()
    folder = roots.preprocessed / DEMO_DATASET
    plans = load_plans(folder / "nnUNetPlans.json")
    schedule = resolve(
        Recipe(mode="efficiency", epochs=40, iterations_per_epoch=20),
        PlanFacts.of(plans, plans.configuration("3d_fullres")),
    )
    chosen = schedule.stages[stage].model_copy(update={"epochs": 1})
    schedule = schedule.model_copy(update={"stages": (chosen,), "iterations_per_epoch": 10**6})
    trainer = build_trainer(
        label=f"Contention{os.getpid()}",
        plans=json.loads((folder / "nnUNetPlans.json").read_text()),
        configuration="3d_fullres",
        fold=0,
        dataset_json=json.loads((folder / "dataset.json").read_text()),
        device=device,
        continuing=False,
    )
    run = RunFolder(Path(trainer.output_folder))
    trainer.attach(
        Settings(
            run=run,
            schedule=schedule,
            seed=0,
            workers=default_workers(device),
            emit=lambda *_, **__: None,
            stop_requested=lambda: None,
            energy=EnergyMeter(run.path, enabled=False),
        )
    )
    trainer.initialize()
    return trainer


@contextmanager
def load(name: str, companion: Worker | None) -> Iterator[None]:
    """Other work, for as long as the context lasts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(_busy(name))]
    if name == "training" and companion is not None:
        companion.resume()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
        if name == "training" and companion is not None:
            companion.pause()


def _busy(name: str) -> int:
    return int(name.removeprefix("busy")) if name.startswith("busy") else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="where the demo is prepared, or will be")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--loads", default="alone,busy1,busy2,training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--stage", type=int, default=-1)
    parser.add_argument("--what", choices=("train", "predict", "batches"), default="train")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.root, asked.stage)
        return
    variants, loads = asked.variants.split(","), asked.loads.split(",")
    subprocess.run([sys.executable, "-m", "ppgs", "prepare", "demo", "--root", str(asked.root)], check=True)
    workers = {name: Worker(name, asked.root, asked.stage) for name in variants}
    companions = {name: Worker(name, asked.root, asked.stage) for name in variants if "training" in loads}
    for worker in (*workers.values(), *companions.values()):
        worker.answer()
    for companion in companions.values():
        companion.say("forever", 0)
        companion.pause()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        for _ in range(asked.rounds):
            for name in loads:
                for variant in variants:
                    with load(name, companions.get(variant)):
                        found.setdefault((variant, name), []).append(workers[variant].say(asked.what, asked.steps))
    finally:
        for worker in (*workers.values(), *companions.values()):
            worker.end()
    show(variants, loads, found)


def show(variants: list[str], loads: list[str], found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    alone = median(one["seconds"] for one in found[variants[0], loads[0]])
    print(f"seconds a step (÷ {variants[0]}, {loads[0]}; CPU seconds)\n")
    print("| variant | " + " | ".join(loads) + " |")
    print("| --- " * (len(loads) + 1) + "|")
    for variant in variants:
        cells = []
        for name in loads:
            seconds, cpu = (median(one[key] for one in found[variant, name]) for key in ("seconds", "cpu"))
            cells.append(f"{seconds:.3f} ({seconds / alone:.2f}; {cpu:.3f})")
        print(f"| {variant} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
