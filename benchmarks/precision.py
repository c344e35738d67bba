"""Training steps in bfloat16 beside float32 on this CPU: does `--precision auto` choose the faster one here?

    python benchmarks/precision.py PLANS.json --configuration 3d_fullres --patches 8x8x8,40x56x40 --threads 1,2

`dataset.json` is read from the folder of the plans. The two steps alternate, so that a change of the machine's speed
falls on both, and the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch

from ppgs.estimate.cards import cpu_name
from ppgs.estimate.network import Network
from ppgs.formatting import patch_text
from ppgs.nnunet.network import precision
from ppgs.nnunet.probing.step import Step
from ppgs.plans import load_plans
from ppgs.plans.parsing import load_dataset

CPU = torch.device("cpu")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--patches", required=True)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each patch")
    return parser.parse_args()


def make_step(facts: dict[str, object], *, bfloat16: bool) -> Step:
    precision.has_bfloat16 = lambda _: bfloat16
    return Step(facts, "cpu", trained=True)


def seconds_of(step: Step, patch: tuple[int, ...], batch: int) -> float:
    begun = time.perf_counter()
    step.train(patch, batch)
    return time.perf_counter() - begun


def main() -> None:
    options = arguments()
    chosen = "bfloat16" if precision.has_bfloat16(CPU) else "float32"
    print(f"{cpu_name()}, PyTorch {torch.__version__}; ppgs trains in {chosen} here\n")
    plans, dataset = load_plans(options.plans), load_dataset(options.plans.parent / "dataset.json")
    network = Network.of(plans.configuration(options.configuration), dataset)
    facts = network.model_dump(mode="json")
    single, half = make_step(facts, bfloat16=False), make_step(facts, bfloat16=True)
    print("| threads | patch | pairs | float32 s | bfloat16 s | ratio | smallest, largest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for threads in map(int, options.threads.split(",")):
        torch.set_num_threads(threads)
        for text in options.patches.split(","):
            patch = tuple(map(int, text.split("x")))
            for step in (single, half):
                step.train(patch, options.batch_size)
            pairs: list[tuple[float, float]] = []
            end = time.monotonic() + options.seconds
            while len(pairs) < 5 or time.monotonic() < end:
                first, second = (seconds_of(step, patch, options.batch_size) for step in (single, half))
                pairs.append((first, second))
            ratios = sorted(second / first for first, second in pairs)
            medians = (f"{median(one):.3f}" for one in zip(*pairs, strict=True))
            cells = [threads, patch_text(patch), len(pairs), *medians]
            cells += [f"{median(ratios):.2f}", f"{ratios[0]:.2f}, {ratios[-1]:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
