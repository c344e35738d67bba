"""What a training costs beside stock nnU-Net and beside its compute limit.

    python benchmarks/speed.py TASK --root DIR [--device cpu] [--batch-size 2] [--epochs 15] [--iterations 10]

Trains TASK (prepared where needed) with stock nnU-Net and with ppgs' `constant`, `efficiency` and `performance`, round
by round in turn, each in a process of its own, then times every stage's train step alone on a batch that is already
there: the compute limit. Prints a table a contender and the ratios; `--markdown FILE` writes them down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

SCHEDULES = ("constant", "efficiency", "performance")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--contenders", default="stock,constant,efficiency,performance")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--only", choices=("stock", "limit"), help=argparse.SUPPRESS)
    return parser.parse_args()


def train_ours(options: argparse.Namespace, schedule: str, seed: int) -> dict[str, Any]:
    """One training by the command itself; times from its event log."""
    command = [sys.executable, "-m", "ppgs", "train", options.task, "--root", options.root, "--schedule", schedule]
    command += ["--epochs", options.epochs, "--iterations", options.iterations, "--batch-size", options.batch_size]
    command += ["--device", options.device, "--seed", seed, "--name", "speed", "--overwrite", "--no-tui"]
    if options.workers is not None:
        command += ["--workers", options.workers]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    pattern = f"nnUNet_results/*/*PPGS_{schedule}_*speed__*/fold_0/ppgs/events.jsonl"
    newest = max(options.root.glob(pattern), key=lambda p: p.stat().st_mtime)
    epochs = [r for r in map(json.loads, newest.read_text().splitlines()) if r["type"] == "epoch_finished"]
    return {
        "command_seconds": wall,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "stages": [e["stage"] for e in epochs],
        "seconds": [e["seconds"] for e in epochs],
        "train": [e["train_seconds"] - e["data_wait_seconds"] for e in epochs],
        "data_wait": [e["data_wait_seconds"] for e in epochs],
        "validation": [e["validation_seconds"] for e in epochs],
        "checkpoint": [e["checkpoint_seconds"] for e in epochs],
    }


def train_stock() -> dict[str, Any]:
    """One training of stock nnU-Net's own trainer, loaders and loop; only its lengths and batch size are set."""
    command = [sys.executable, __file__, *map(str, sys.argv[1:]), "--only", "stock"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def stock(options: argparse.Namespace) -> None:
    trainer = _trainer(options, "nnUNetTrainer")
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.epochs, options.iterations
    trainer.num_val_iterations_per_epoch = max(1, -(-options.iterations // 5))
    trainer.initialize()
    trainer.batch_size = options.batch_size
    steps: list[float] = []
    plain = trainer.train_step

    def timed(batch: dict[str, Any]) -> Any:
        started = time.perf_counter()
        result = plain(batch)
        steps.append(time.perf_counter() - started)
        return result

    trainer.train_step = timed
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    ends = log["epoch_end_timestamps"]
    begins = log["epoch_start_timestamps"]
    # What nnU-Net does between two epochs (checkpoints, its picture) belongs to the epoch before.
    seconds = [b - a for a, b in zip(begins, [*begins[1:], ends[-1]], strict=True)]
    n = options.iterations
    train = [sum(steps[e * n : (e + 1) * n]) for e in range(options.epochs)]
    print(json.dumps({"seconds": seconds, "train": train, "stages": [0] * options.epochs}))


def limit(options: argparse.Namespace) -> None:
    """Seconds of one train step of every stage of every schedule, on a batch that is already on the device."""
    import torch

    from ppgs.plans import load_plans
    from ppgs.schedule import PlanFacts, Recipe, resolve

    trainer = _trainer(options, "PpgsTrainer")
    plans = load_plans(next(options.root.glob("nnUNet_preprocessed/*/nnUNetPlans.json")))
    facts = PlanFacts.of(plans, plans.configuration("3d_fullres"))
    found: dict[str, list[float]] = {}
    trainer.initialize_alone()
    for mode in SCHEDULES:
        recipe = Recipe(mode=mode, epochs=max(options.epochs, 50), batch_size=options.batch_size)
        found[mode] = []
        for stage in resolve(recipe, facts).stages:
            data = torch.randn(stage.batch_size, trainer.num_input_channels, *stage.patch_size, device=trainer.device)
            scales = trainer._get_deep_supervision_scales()
            target = [
                torch.randint(
                    0, 2, (stage.batch_size, 1, *(round(p * s) for p, s in zip(stage.patch_size, scale, strict=True)))
                ).float()
                for scale in scales
            ]
            times = []
            spent = time.perf_counter()
            while len(times) < 3 or (time.perf_counter() - spent < 3 and len(times) < 12):
                started = time.perf_counter()
                trainer._step({"data": data, "target": target}, 1)
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
            found[mode].append(median(times[1:]))
    print(json.dumps(found))


def _trainer(options: argparse.Namespace, kind: str) -> Any:
    from ppgs.nnunet.environment import prepare_environment
    from ppgs.tasks import Roots, resolve_task

    roots = Roots.under(options.root)
    prepare_environment(roots)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ppgs.nnunet.precision import has_bfloat16
    from ppgs.nnunet.trainer import PpgsTrainer, set_threads

    class Alone(PpgsTrainer):
        """The network, loss and optimiser without a run."""

        def initialize_alone(self) -> None:
            self.batch_size = options.batch_size
            self.settings = SimpleNamespace(bfloat16=has_bfloat16(self.device))
            nnUNetTrainer.initialize(self)
            if self.settings.bfloat16:
                self.grad_scaler = None
            self.network.train()

        def _set_batch_size_and_oversample(self) -> None:
            pass

    device = torch.device(options.device)
    set_threads(device)
    folder = roots.preprocessed / resolve_task(options.task, roots).dataset
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    # Its folder must not be taken for a run: results go beside the root.
    os.environ["nnUNet_results"] = str(options.root / "speed_stock")
    trainer = {"nnUNetTrainer": nnUNetTrainer, "PpgsTrainer": Alone}[kind]
    return trainer({**plans, "continue_training": False}, "3d_fullres", 0, dataset, device)


def report(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]], limits: dict[str, list[float]]) -> str:
    lines = [
        f"# Speed: {Path(options.task).name}, batch {options.batch_size}, {options.epochs} epochs of "
        f"{options.iterations} iterations, {options.device}",
        "",
        f"{date.today()}, {os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, "
        f"{options.rounds} round(s), interleaved; medians over rounds. The first epoch starts the loader.",
        "",
        "| contender | training s | train steps | data wait | validation | checkpoint | ÷ stock | ÷ own limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    total = {name: median(sum(r["seconds"]) for r in results) for name, results in runs.items()}
    stages = {name: results[0]["stages"] for name, results in runs.items()}
    bound = {
        name: sum(limits["constant" if name == "stock" else name][s] * options.iterations for s in stages[name])
        for name in runs
    }
    base = total.get("stock") or total.get("constant")
    for name, results in runs.items():

        def part(key: str, results: list[dict[str, Any]] = results, whole: float = total[name]) -> str:
            if key not in results[0]:
                return "-"
            return f"{100 * median(sum(r[key]) for r in results) / whole:.1f} %"

        lines.append(
            f"| {name} | {total[name]:.1f} | {part('train')} | {part('data_wait')} | {part('validation')} | "
            f"{part('checkpoint')} | {total[name] / base:.3f} | {total[name] / bound[name]:.2f} |"
            if base
            else ""
        )
    for name in (n for n in runs if n in ("efficiency", "performance")):
        lines += [
            "",
            f"## {name} by stage",
            "",
            "| stage | s an epoch | compute limit | ratio |",
            "| --- | --- | --- | --- |",
        ]
        for stage in sorted(set(stages[name])):
            epochs = [i for i, s in enumerate(stages[name]) if s == stage]
            seconds = median(r["seconds"][i] for r in runs[name] for i in epochs)
            alone = limits[name][stage] * options.iterations
            lines.append(f"| {stage + 1} | {seconds:.2f} | {alone:.2f} | {seconds / alone:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = arguments()
    if options.only == "stock":
        return stock(options)
    if options.only == "limit":
        return limit(options)
    prepared = [sys.executable, "-m", "ppgs", "prepare", options.task, "--root", str(options.root)]
    subprocess.run(prepared, check=True)
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.rounds):
        for name in options.contenders.split(","):
            print(f"round {seed + 1}: {name}", file=sys.stderr, flush=True)
            result = train_stock() if name == "stock" else train_ours(options, name, seed)
            runs.setdefault(name, []).append(result)
    done = subprocess.run(
        [sys.executable, __file__, *map(str, sys.argv[1:]), "--only", "limit"], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    text = report(options, runs, json.loads(done.stdout.splitlines()[-1]))
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
