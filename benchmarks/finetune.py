"""Value of pretrained weights: validation Dice of a short fine-tuning and of a training from scratch, over seeds.

    python benchmarks/finetune.py TASK --root DIR [--seeds 3] [--pretraining 10] [--epochs 12] [--iterations 20]

TASK is a Decathlon folder such as Task04_Hippocampus. Every other case becomes the first half, on which stock nnU-Net's
own trainer trains for `--pretraining` epochs. Its plans are transferred to the second half, on whose fold 0
`--schedule` then trains for `--epochs` epochs, once from the weights in stock nnU-Net's checkpoint and once from random
ones. Trainings that are done are not repeated. `--markdown FILE` writes the table down.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import mean

from cells import same_settings

from ppgs.tasks import Roots, resolve_task

HALVES = ("Task91_FirstHalf", "Task92_SecondHalf")
PLANS = "nnUNetPlansFromFirstHalf"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--schedule", default="efficiency")
    parser.add_argument("--pretraining", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def ppgs(*command: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppgs", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)


def make_halves(task: Path, root: Path) -> list[Path]:
    """Link every other case into each of two Decathlon folders."""
    content = json.loads((task / "dataset.json").read_text())
    halves = []
    for index, name in enumerate(HALVES):
        half = root / name
        halves.append(half)
        cases = content["training"][index::2]
        for file in (file for case in cases for file in case.values()):
            link = half / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((task / file).resolve())
        described = content | {"name": name, "training": cases, "numTraining": len(cases), "test": [], "numTest": 0}
        (half / "dataset.json").write_text(json.dumps(described))
    return halves


def trained(options: argparse.Namespace, task: Path, name: str, epochs: int, seed: int, *more: object) -> float:
    """Return the validation Dice of one training."""
    pattern = f"nnUNet_results/*/nnUNetTrainerPPGS_*{name}__*__{options.configuration}/fold_0/validation/summary.json"
    if not list(options.root.glob(pattern)):
        command = ["train", task, "--root", options.root, "--schedule", options.schedule, "--epochs", epochs]
        command += ["--configuration", options.configuration, "--name", name]
        command += ["--iterations", options.iterations, "--batch-size", options.batch_size, "--seed", seed, *more]
        ppgs(*command, "--device", options.device, "--overwrite", "--no-energy", "--no-tui", "--yes")
    (summary,) = options.root.glob(pattern)
    return float(json.loads(summary.read_text())["foreground_mean"]["Dice"])


def pretrain(options: argparse.Namespace, task: Path) -> None:
    """Train with stock nnU-Net's own trainer, loaders and loop; only its lengths and batch size are set."""
    roots = Roots.choose(options.root, os.environ)
    os.environ.update(roots.environment)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    data = roots.preprocessed / resolve_task(str(task), roots).dataset
    plans, dataset = (json.loads((data / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    torch.manual_seed(0)
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, options.configuration, 0, dataset, torch.device(options.device)
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.pretraining, options.iterations
    trainer.num_val_iterations_per_epoch = math.ceil(options.iterations / 5)
    trainer.initialize()
    trainer.batch_size = options.batch_size
    trainer.run_training()


def main() -> None:
    options = arguments()
    own = ("task", "device", "batch_size", "iterations", "configuration", "schedule", "pretraining", "epochs")
    same_settings(options.root, "fine-tuning", {key: getattr(options, key) for key in own})
    first, second = make_halves(options.task, options.root)
    if options.stock:
        pretrain(options, first)
        return
    folder = f"nnUNet_results/*FirstHalf/nnUNetTrainer__nnUNetPlans__{options.configuration}/fold_0"
    pattern = f"{folder}/checkpoint_final.pth"
    if not list(options.root.glob(pattern)):
        ppgs("prepare", first, "--root", options.root, "--configuration", options.configuration)
        subprocess.run([sys.executable, *sys.argv, "--stock"], check=True, stdout=sys.stderr)
    (checkpoint,) = options.root.glob(pattern)
    planned = ["--plans-from", checkpoint, "--plans", PLANS, "--configuration", options.configuration]
    ppgs("prepare", second, "--root", options.root, *planned)
    lines = [
        f"# Fine-tuning and training from scratch: halves of {options.task.name}, {options.configuration}, "
        f"`{options.schedule}`, "
        f"{options.epochs} epochs of {options.iterations} iterations, batch {options.batch_size}, {options.device}",
        "",
        f"{date.today()}, {os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}; the "
        f"weights are those of stock nnU-Net's trainer after {options.pretraining} such epochs on the other half.",
        "",
        "| seed | from scratch | fine-tuned | difference |",
        "| --- | --- | --- | --- |",
    ]
    pairs = []
    for seed in range(options.seeds):
        scratch = trained(options, second, f"scratch-{seed}", options.epochs, seed, "--plans", PLANS)
        tuned = trained(
            options, second, f"tuned-{seed}", options.epochs, seed, "--plans", PLANS, "--pretrained", checkpoint
        )
        pairs.append((scratch, tuned))
        lines.append(f"| {seed} | {scratch:.4f} | {tuned:.4f} | {tuned - scratch:+.4f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    scratch, tuned = (mean(column) for column in zip(*pairs, strict=True))
    lines.append(f"| mean | {scratch:.4f} | {tuned:.4f} | {tuned - scratch:+.4f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
