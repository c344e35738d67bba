"""What pretrained weights are worth: validation Dice of a short fine-tuning and of a training from scratch, over seeds.

    python benchmarks/finetune.py TASK --root DIR [--seeds 3] [--pretraining 16] [--epochs 5] [--iterations 20]

TASK is a Decathlon folder such as Task04_Hippocampus. Every other case becomes the first half, on which constant patch
size trains for `--pretraining` epochs; the result is exported as nnU-Net's model zip. The plans are transferred to the
second half, on whose fold 0 the zip's weights and random ones are trained for `--epochs` epochs each. Trainings that
are done are not repeated. `--markdown FILE` writes the table down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import mean

HALVES = ("Task91_FirstHalf", "Task92_SecondHalf")
PLANS = "nnUNetPlansFromFirstHalf"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--pretraining", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def ppgs(*command: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppgs", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)


def make_halves(task: Path, root: Path) -> list[Path]:
    """Two Decathlon folders with every other case each, linked."""
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
    """Validation Dice of one training with constant patch size."""
    pattern = f"nnUNet_results/*/nnUNetTrainerPPGS_constant_*{name}__*/fold_0/validation/summary.json"
    if not list(options.root.glob(pattern)):
        command = ["train", task, "--root", options.root, "--schedule", "constant", "--epochs", epochs, "--name", name]
        command += ["--iterations", options.iterations, "--batch-size", options.batch_size, "--seed", seed, *more]
        ppgs(*command, "--device", options.device, "--overwrite", "--no-energy", "--no-tui", "--yes")
    (summary,) = options.root.glob(pattern)
    return float(json.loads(summary.read_text())["foreground_mean"]["Dice"])


def main() -> None:
    options = arguments()
    options.root.mkdir(parents=True, exist_ok=True)
    first, second = make_halves(options.task, options.root)
    before = trained(options, first, "pretraining", options.pretraining, 0)
    print(f"pretraining: {before:.4f} on its own half", file=sys.stderr, flush=True)
    (model,) = options.root.glob("nnUNet_results/*/nnUNetTrainerPPGS_constant_*pretraining__*")
    archive = options.root / "pretrained.zip"
    ppgs("export", model, "--root", options.root, "-o", archive, "--overwrite")
    ppgs("prepare", second, "--root", options.root, "--plans-from", archive, "--plans", PLANS)
    lines = [
        f"# Fine-tuning and training from scratch: halves of {options.task.name}, {options.epochs} epochs of "
        f"{options.iterations} iterations, batch {options.batch_size}, {options.device}",
        "",
        f"{date.today()}, {os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}; pretrained "
        f"for {options.pretraining} epochs on the other half.",
        "",
        "| seed | from scratch | fine-tuned | difference |",
        "| --- | --- | --- | --- |",
    ]
    pairs = []
    for seed in range(options.seeds):
        scratch = trained(options, second, f"scratch-{seed}", options.epochs, seed, "--plans", PLANS)
        tuned = trained(
            options, second, f"tuned-{seed}", options.epochs, seed, "--plans", PLANS, "--pretrained", archive
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
