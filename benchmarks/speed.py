"""What a training costs beside stock nnU-Net and beside its compute limit.

    python benchmarks/speed.py TASK --root DIR [--device cpu] [--batch-size 2] [--epochs 15] [--iterations 10]

Trains TASK (prepared where needed) with stock nnU-Net and with ppgs' `constant`, `efficiency` and `performance`, round
by round in turn, each in a process of its own, and in every round times every stage's train step alone on a batch that
is already there: the compute limit. Prints a table of all, one of the stages of each, and the ratios; `--markdown FILE`
writes them down. A contender with a switch of `ppgs train` turned is written `efficiency+precision=nnunet`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil

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
    parser.add_argument("--limit-seconds", type=float, default=3.0, help="to spend on each stage's compute limit")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--only", choices=("stock", "limit"), help=argparse.SUPPRESS)
    return parser.parse_args()


def train_ours(options: argparse.Namespace, contender: str, seed: int) -> dict[str, Any]:
    """One training by the command itself; times from its event log."""
    schedule, *switches = contender.split("+")
    command = [sys.executable, "-m", "ppgs", "train", options.task, "--root", options.root, "--schedule", schedule]
    command += ["--epochs", options.epochs, "--iterations", options.iterations, "--batch-size", options.batch_size]
    command += ["--device", options.device, "--seed", seed, "--name", "speed", "--overwrite", "--no-tui"]
    if options.workers is not None:
        command += ["--workers", options.workers]
    for switch in switches:
        command += ["--{}".format(switch.partition("=")[0]), switch.partition("=")[2]]
    _, peak = run_measured([str(c) for c in command])
    pattern = f"nnUNet_results/*/*PPGS_{schedule}_*speed__*/fold_0/ppgs/events.jsonl"
    newest = max(options.root.glob(pattern), key=lambda p: p.stat().st_mtime)
    records = [json.loads(line) for line in newest.read_text().splitlines()]
    epochs = [r for r in records if r["type"] == "epoch_finished"]
    (begun,) = [r for r in records if r["type"] == "run_started"]
    return {
        "peak_bytes": peak,
        "sizes": [(s["patch_size"], s["batch_size"]) for s in begun["stages"]],
        "stages": [e["stage"] for e in epochs],
        "seconds": [e["seconds"] for e in epochs],
        "train": [e["train_seconds"] - e["data_wait_seconds"] for e in epochs],
        "data_wait": [e["data_wait_seconds"] for e in epochs],
        "validation": [e["validation_seconds"] for e in epochs],
        "checkpoint": [e["checkpoint_seconds"] for e in epochs],
        "rest": [e["seconds"] - e["train_seconds"] - e["validation_seconds"] - e["checkpoint_seconds"] for e in epochs],
    }


def train_stock() -> dict[str, Any]:
    """One training of stock nnU-Net's own trainer, loaders and loop; only its lengths and batch size are set."""
    command = [sys.executable, __file__, *map(str, sys.argv[1:]), "--only", "stock"]
    output, peak = run_measured(command)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**result, "peak_bytes": peak}


def run_measured(command: list[str]) -> tuple[str, int]:
    """What a command prints, and the largest memory (bytes, shared pages counted once) of it and its descendants."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_memory, tree(process.pid))))
            time.sleep(1)
        for file in (output, errors):
            file.seek(0)
        if process.returncode:
            sys.exit(errors.read())
        return output.read(), peak


def tree(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(p.pid for p in process.children(recursive=True))]


def proportional_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


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
    """Seconds of a train step of every stage, on a batch that is already there: stock nnU-Net's and the schedules'."""
    import torch

    from ppgs.plans import load_plans
    from ppgs.schedule import PlanFacts, Recipe, resolve

    plans = load_plans(next(options.root.glob("nnUNet_preprocessed/*/nnUNetPlans.json")))
    facts = PlanFacts.of(plans, plans.configuration("3d_fullres"))
    recipes = {m: Recipe(mode=m, epochs=max(options.epochs, 50), batch_size=options.batch_size) for m in SCHEDULES}
    stages = {mode: resolve(recipe, facts).stages for mode, recipe in recipes.items()}
    found: dict[str, list[float]] = {}
    taken: dict[tuple[Any, ...], float] = {}
    for kind, modes in (("nnUNetTrainer", ("stock",)), ("PpgsTrainer", SCHEDULES)):
        trainer = _trainer(options, kind)
        trainer.initialize()
        trainer.network.train()

        def seconds(size: tuple[int, ...], batch: int, trainer: Any = trainer) -> float:
            shapes = [size]
            if (scales := trainer._get_deep_supervision_scales()) is not None:
                shapes = [tuple(round(p * f) for p, f in zip(size, scale, strict=True)) for scale in scales]
            target = [torch.randint(0, 2, (batch, 1, *shape)).float() for shape in shapes]
            data = torch.randn(batch, trainer.num_input_channels, *size).to(trainer.device)
            times: list[float] = []
            begun = time.perf_counter()
            while len(times) < 4 or (time.perf_counter() - begun < options.limit_seconds and len(times) < 40):
                started = time.perf_counter()
                trainer.train_step({"data": data, "target": target})
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
            return median(times[1:])

        for mode in modes:
            for stage in stages["constant" if mode == "stock" else mode]:
                key = (kind, stage.patch_size, stage.batch_size)
                if key not in taken:
                    taken[key] = seconds(stage.patch_size, stage.batch_size)
                found.setdefault(mode, []).append(taken[key])
    print(json.dumps(found))


def _trainer(options: argparse.Namespace, kind: str) -> Any:
    from ppgs.nnunet.environment import prepare_environment
    from ppgs.tasks import Roots, resolve_task

    roots = Roots.under(options.root)
    prepare_environment(roots)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ppgs.nnunet.allocator import keep_released_memory
    from ppgs.nnunet.precision import has_bfloat16
    from ppgs.nnunet.ranks import Ranks
    from ppgs.nnunet.trainer import PpgsTrainer, set_threads
    from ppgs.schedule.shares import Cut

    class Alone(PpgsTrainer):
        """The network, loss and optimiser without a run; a train step without its surroundings."""

        def initialize(self) -> None:
            self.batch_size = options.batch_size
            self.settings = SimpleNamespace(bfloat16=has_bfloat16(self.device), ranks=Ranks())
            self._cut = Cut()
            if self.settings.bfloat16:
                self.grad_scaler = None
            nnUNetTrainer.initialize(self)

        def _set_batch_size_and_oversample(self) -> None:
            pass

        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            return self._step({**batch, "key": SimpleNamespace(batch_size=len(batch["data"]))}, 1)

    device = torch.device(options.device)
    set_threads(device)
    if kind == "PpgsTrainer" and device.type == "cpu":
        keep_released_memory()
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
        f"{options.rounds} round(s), interleaved; medians over rounds. The compute limit is the train steps alone, "
        "on a batch that is already there, as the contender takes them (stock nnU-Net in its own precision).",
        "",
        "| contender | training s | train steps | data wait | validation | checkpoint | rest | peak memory | ÷ stock "
        "| ÷ own limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    total = {name: median(sum(r["seconds"]) for r in results) for name, results in runs.items()}
    base = total.get("stock")
    for name, results in runs.items():
        alone = limits[name.partition("+")[0]]
        bound = sum(alone[stage] for stage in results[0]["stages"]) * options.iterations

        def part(key: str, results: list[dict[str, Any]] = results, whole: float = total[name]) -> str:
            return f"{100 * median(sum(r[key]) for r in results) / whole:.1f} %" if key in results[0] else "-"

        memory = max(r["peak_bytes"] for r in results) / 2**30
        lines.append(
            f"| {name} | {total[name]:.1f} | {part('train')} | {part('data_wait')} | {part('validation')} | "
            f"{part('checkpoint')} | {part('rest')} | {memory:.2f} GiB | "
            f"{f'{total[name] / base:.3f}' if base else '-'} | {total[name] / bound:.3f} |"
        )
    for name, results in runs.items():
        if len(set(results[0]["stages"])) > 1:
            lines += stage_table(name, results, limits[name.partition("+")[0]], options.iterations)
    return "\n".join(lines) + "\n"


def stage_table(name: str, results: list[dict[str, Any]], alone: list[float], iterations: int) -> list[str]:
    """Medians over the epochs of each stage."""
    lines = [
        "",
        f"## {name} by stage",
        "",
        "| stage | patch | batch | s an epoch | samples/s | train steps | compute limit | ratio | data wait "
        "| validation | checkpoint |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in sorted(set(results[0]["stages"])):
        epochs = [i for i, s in enumerate(results[0]["stages"]) if s == stage]
        patch, batch = results[0]["sizes"][stage]
        value = {
            key: median(r[key][i] for r in results for i in epochs)
            for key in ("seconds", "train", "data_wait", "validation", "checkpoint")
        }
        limit = alone[stage] * iterations
        lines.append(
            f"| {stage + 1} | {'x'.join(map(str, patch))} | {batch} | {value['seconds']:.2f} | "
            f"{batch * iterations / value['seconds']:.1f} | {value['train']:.2f} | {limit:.2f} | "
            f"{value['train'] / limit:.3f} | {value['data_wait']:.2f} | {value['validation']:.2f} | "
            f"{value['checkpoint']:.2f} |"
        )
    return lines


def main() -> None:
    options = arguments()
    if options.only == "stock":
        return stock(options)
    if options.only == "limit":
        return limit(options)
    prepared = [sys.executable, "-m", "ppgs", "prepare", options.task, "--root", str(options.root)]
    subprocess.run(prepared, check=True)
    runs: dict[str, list[dict[str, Any]]] = {}
    measured: list[dict[str, list[float]]] = []
    for seed in range(options.rounds):
        for name in options.contenders.split(","):
            print(f"round {seed + 1}: {name}", file=sys.stderr, flush=True)
            result = train_stock() if name == "stock" else train_ours(options, name, seed)
            runs.setdefault(name, []).append(result)
        output, _ = run_measured([sys.executable, __file__, *map(str, sys.argv[1:]), "--only", "limit"])
        measured.append(json.loads(output.splitlines()[-1]))
    limits = {
        mode: [median(r[mode][i] for r in measured) for i in range(len(steps))] for mode, steps in measured[0].items()
    }
    text = report(options, runs, limits)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
