"""Cost of a training beside stock nnU-Net and beside its compute limit.

    python benchmarks/speed.py TASK --root DIR [--device cpu] [--batch-size 2] [--epochs 15] [--iterations 10]
    python benchmarks/speed.py TASK --root DIR --device cuda --epochs 45 --iterations 50

Trains TASK (prepared where needed) with stock nnU-Net and with ppgs' `constant`, `efficiency` and `performance`, round
by round in turn, each in a separate process. The compute limit is measured within the training: after every epoch,
loader processes idle, the same step on the epoch's last batch, so that a machine whose speed changes changes both.
Prints a table of all, one of the stages of each, and the ratios; `--markdown FILE` writes them down. A stage's first
epoch is reported apart, since it compiles on a GPU: the median of its further ones counts in its place, so
give three epochs a stage at least. On a GPU all contenders have as many loader processes.

A contender with a switch of `ppgs train` turned is written `efficiency+precision=nnunet`. `synthetic_task.py` here
makes a TASK of the shapes of one whose images are not at hand.
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
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots

# A look at a training's memory takes 20 ms of a core, which the training misses: once a second cost it 2 %.
_MEMORY_SECONDS = 10.0


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
    parser.add_argument("--limit-seconds", type=float, default=2.0, help="to spend on the compute limit after an epoch")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--so-far", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def train(contender: str, seed: int) -> dict[str, Any]:
    """One training in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", contender, "--seed", str(seed)]
    output, peak = run_measured(command)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**result, "peak_bytes": peak}


def run_measured(command: list[str]) -> tuple[str, int]:
    """Run a command; return its output and the peak memory (bytes, shared pages counted once) of its processes."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, text=True)
        peak, looked = 0, 0.0
        while process.poll() is None:
            peak = max(peak, most_so_far(process.pid))
            if time.monotonic() - looked > _MEMORY_SECONDS:
                peak, looked = max(peak, sum(map(proportional_memory, tree(process.pid)))), time.monotonic()
            time.sleep(0.2)
        for file in (output, errors):
            file.seek(0)
        if process.returncode:
            sys.exit(errors.read())
        return output.read(), peak


def most_so_far(pid: int) -> int:
    """The largest memory of the process itself, which the kernel keeps for it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def tree(pid: int) -> list[int]:
    process = psutil.Process(pid)
    return [pid, *(p.pid for p in process.children(recursive=True))]


def proportional_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def stock(options: argparse.Namespace) -> dict[str, Any]:
    """Stock nnU-Net's own trainer, loaders and loop; only its lengths and batch size are set."""
    roots = _roots(options)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ppgs.nnunet.host.devices import set_threads
    from ppgs.tasks import resolve_task

    device = torch.device(options.device)
    set_threads(device)
    folder = roots.preprocessed / resolve_task(options.task, roots).dataset
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    os.environ["nnUNet_results"] = str(options.root / "speed_stock")
    if (workers := loaders(options)) is not None:
        os.environ["nnUNet_n_proc_DA"] = str(workers)
    found: dict[str, list[float]] = {"seconds": [], "train": [], "limit": []}
    spent = {"train": 0.0, "begun": 0.0}

    class Timed(nnUNetTrainer):  # type: ignore[misc]
        last: dict[str, Any]

        def train_step(self, batch: dict[str, Any]) -> Any:
            started = time.perf_counter()
            result = super().train_step(batch)
            spent["train"] += time.perf_counter() - started
            self.last = batch
            return result

        def on_train_epoch_start(self) -> None:
            spent["train"] = 0.0
            super().on_train_epoch_start()

        def on_epoch_start(self) -> None:
            spent["begun"] = spent["begun"] or time.perf_counter()
            super().on_epoch_start()

        def on_epoch_end(self) -> None:
            # With what is done between two epochs: checkpoints and a picture.
            super().on_epoch_end()
            found["seconds"].append(time.perf_counter() - spent["begun"])
            found["train"].append(spent["train"])
            step = partial(super().train_step, self.last)
            found["limit"].append(step_alone(self, step, options.limit_seconds))
            write_so_far(options, {**found, "stages": [0] * len(found["limit"])})
            spent["begun"] = time.perf_counter()

    trainer = Timed({**plans, "continue_training": False}, "3d_fullres", 0, dataset, device)
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.epochs, options.iterations
    trainer.num_val_iterations_per_epoch = max(1, -(-options.iterations // 5))
    trainer.initialize()
    trainer.batch_size = options.batch_size
    trainer.run_training()
    return {**found, "stages": [0] * options.epochs}


def write_so_far(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Keep the result of the epochs until now for a caller that ends this process."""
    if options.so_far is not None:
        write_text(options.so_far, json.dumps(result))


def loaders(options: argparse.Namespace) -> int | None:
    """Loader processes of every contender; None where each has its own default: on the CPU they compete for it."""
    asked: int | None = options.workers
    if asked is not None or options.device == "cpu":
        return asked
    import torch

    from ppgs.nnunet.host.devices import default_workers

    return default_workers(torch.device(options.device))


def ours(options: argparse.Namespace, contender: str) -> dict[str, Any]:
    """Run the training process that `ppgs train` starts; take times from its event log."""
    roots = _roots(options)
    from ppgs.commands.train.plan import create_run
    from ppgs.nnunet.process import validation
    from ppgs.nnunet.process.leader import TrainingProcess
    from ppgs.nnunet.trainer.steps import Steps
    from ppgs.nnunet.trainer.trainer import PpgsTrainer
    from ppgs.runs.request import TrainingRequest

    schedule, *switches = contender.split("+")
    asked: dict[str, Any] = dict(switch.split("=", 1) for switch in switches)
    request = TrainingRequest(
        task=options.task,
        schedule=schedule,
        epochs=options.epochs,
        iterations=options.iterations,
        batch_size=options.batch_size,
        seed=options.seed,
        device=options.device,
        workers=loaders(options),
        name="speed",
        overwrite=True,
        **asked,
    )
    limits: list[float] = []
    last: dict[str, Any] = {}
    plain_step, plain_end = Steps.take, PpgsTrainer.on_epoch_end

    def held(self: Steps, batch: dict[str, Any], parts: int) -> dict[str, Any]:
        last.update(batch=batch, parts=parts)
        return plain_step(self, batch, parts)

    def then_alone(self: PpgsTrainer) -> None:
        plain_end(self)
        self._writer.wait()
        step = partial(plain_step, self._steps, last["batch"], last["parts"])
        limits.append(step_alone(self, step, options.limit_seconds))
        write_so_far(options, measured(run, limits))

    Steps.take, PpgsTrainer.on_epoch_end = held, then_alone  # type: ignore[method-assign]
    # Segmenting whole images at the end is no training.
    validation.validate = lambda *_: None
    run = create_run(request, 0, roots)
    if TrainingProcess(run, roots).main():
        sys.exit("the training failed")
    return measured(run, limits)


def measured(run: RunFolder, limits: list[float]) -> dict[str, Any]:
    """Return the times of a run's epochs from its event log, beside their compute limits."""
    from ppgs.runs.events import read_events

    records = read_events(run.events)
    epochs = [r for r in records if r["type"] == "epoch_finished"]
    (begun,) = [r for r in records if r["type"] == "run_started"]
    return {
        "sizes": [(s["patch_size"], s["batch_size"]) for s in begun["stages"]],
        "stages": [e["stage"] for e in epochs],
        "seconds": [e["seconds"] for e in epochs],
        "train": [e["train_seconds"] - e["data_wait_seconds"] for e in epochs],
        "data_wait": [e["data_wait_seconds"] for e in epochs],
        "validation": [e["validation_seconds"] for e in epochs],
        "checkpoint": [e["checkpoint_seconds"] for e in epochs],
        "rest": [e["seconds"] - e["train_seconds"] - e["validation_seconds"] - e["checkpoint_seconds"] for e in epochs],
        "limit": limits,
    }


def step_alone(trainer: Any, step: Callable[[], Any], seconds: float) -> float:
    """Seconds of a train step on a batch that is already there, nothing else running; the training stays as it was."""
    import torch

    kept = [deepcopy(part.state_dict()) for part in _stateful(trainer)]
    # The validation has just left it otherwise.
    trainer.network.train()
    wait_for_children()
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        step()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    for part, state in zip(_stateful(trainer), kept, strict=True):
        part.load_state_dict(state)
    return median(times[1:])


def _stateful(trainer: Any) -> list[Any]:
    return [part for part in (trainer.network, trainer.optimizer, trainer.grad_scaler) if part is not None]


def wait_for_children() -> None:
    """Wait until the loader's processes have filled their queues."""

    def busy() -> float:
        times = [p.cpu_times() for p in psutil.Process().children(recursive=True)]
        return sum(t.user + t.system for t in times)

    while True:
        before = busy()
        time.sleep(0.3)
        if busy() - before < 0.02:
            return


def _roots(options: argparse.Namespace) -> Roots:
    from ppgs.nnunet.host.environment import prepare_environment

    roots = Roots.under(options.root)
    prepare_environment(roots)
    return roots


def warm(result: dict[str, Any], key: str = "seconds") -> list[float]:
    """Values of all epochs, a stage's first one replaced by the median of its others, if any."""
    values = list(result[key])
    for first, others in epochs_of_stages(result).values():
        if others:
            values[first] = median(values[i] for i in others)
    return values


def epochs_of_stages(result: dict[str, Any]) -> dict[int, tuple[int, list[int]]]:
    """The first epoch of every stage, and its others."""
    found: dict[int, tuple[int, list[int]]] = {}
    for epoch, stage in enumerate(result["stages"]):
        if stage in found:
            found[stage][1].append(epoch)
        else:
            found[stage] = (epoch, [])
    return found


def report(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        f"# Speed: {Path(options.task).name}, batch {options.batch_size}, {options.epochs} epochs of "
        f"{options.iterations} iterations, {options.device}",
        "",
        f"{date.today()}, {os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, "
        f"{options.rounds} round(s), interleaved; medians over rounds. The compute limit is the train steps alone, "
        "on the last batch of every epoch, right after it, as the contender takes them (stock nnU-Net's in its own "
        'precision). Of all columns but "with first epochs" a stage\'s first epoch is left out where it has others: '
        "their median replaces it.",
        "",
        "| contender | training s | with first epochs | train steps | data wait | validation | checkpoint | rest "
        "| peak memory | ÷ stock | ÷ own limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    total = {name: median(sum(warm(r)) for r in results) for name, results in runs.items()}
    base = total.get("stock")
    for name, results in runs.items():
        ratio = median(sum(warm(r)) / (sum(warm(r, "limit")) * options.iterations) for r in results)
        whole_run = median(sum(r["seconds"]) for r in results)

        def part(key: str, results: list[dict[str, Any]] = results, whole: float = total[name]) -> str:
            return f"{100 * median(sum(warm(r, key)) for r in results) / whole:.1f} %" if key in results[0] else "-"

        memory = max(r["peak_bytes"] for r in results) / 2**30
        lines.append(
            f"| {name} | {total[name]:.1f} | {whole_run:.1f} | {part('train')} | {part('data_wait')} | "
            f"{part('validation')} | {part('checkpoint')} | {part('rest')} | {memory:.2f} GiB | "
            f"{f'{total[name] / base:.3f}' if base else '-'} | {ratio:.3f} |"
        )
    for name, results in runs.items():
        if len(set(results[0]["stages"])) > 1:
            lines += stage_table(name, results, options.iterations)
    return "\n".join(lines) + "\n"


def stage_table(name: str, results: list[dict[str, Any]], iterations: int) -> list[str]:
    """Medians over the epochs of each stage but the first, if there are others, and the first."""
    lines = [
        "",
        f"## {name} by stage",
        "",
        "| stage | patch | batch | s an epoch | first | samples/s | train steps | compute limit | ratio | data wait "
        "| validation | checkpoint |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage, (first, others) in epochs_of_stages(results[0]).items():
        epochs = others or [first]
        patch, batch = results[0]["sizes"][stage]
        value = {
            key: median(r[key][i] for r in results for i in epochs)
            for key in ("seconds", "train", "data_wait", "validation", "checkpoint", "limit")
        }
        limit = value["limit"] * iterations
        lines.append(
            f"| {stage + 1} | {'x'.join(map(str, patch))} | {batch} | {value['seconds']:.2f} | "
            f"{median(r['seconds'][first] for r in results):.2f} | "
            f"{batch * iterations / value['seconds']:.1f} | {value['train']:.2f} | {limit:.2f} | "
            f"{value['train'] / limit:.3f} | {value['data_wait']:.2f} | {value['validation']:.2f} | "
            f"{value['checkpoint']:.2f} |"
        )
    return lines


def main() -> None:
    options = arguments()
    if options.only is not None:
        # Whatever is printed on the way is no result.
        with redirect_stdout(sys.stderr):
            result = stock(options) if options.only == "stock" else ours(options, options.only)
        return print(json.dumps(result))
    prepared = [sys.executable, "-m", "ppgs", "prepare", options.task, "--root", str(options.root)]
    subprocess.run(prepared, check=True)
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.rounds):
        for name in options.contenders.split(","):
            print(f"round {seed + 1}: {name}", file=sys.stderr, flush=True)
            runs.setdefault(name, []).append(train(name, seed))
    text = report(options, runs)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
