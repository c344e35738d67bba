"""Traced live bytes and FLOPs against real training steps on the CPU: same network, same precision (float32).

The real step runs under PyTorch's profiler, whose memory events give the peak of live bytes, and under FlopCounterMode.

    python benchmarks/memory_cpu.py ../shared/msd [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from typing import Any

PAIRS: list[tuple[str, str, str, tuple[int, ...], int]] = [
    ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", (8, 8, 8), 9),
    ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", (40, 56, 40), 2),
    ("Dataset001_BrainTumour", "nnUNetPlans", "3d_fullres", (64, 64, 64), 2),
    ("Dataset005_Prostate", "nnUNetPlans", "3d_fullres", (8, 128, 128), 2),
    ("Dataset003_Liver", "nnUNetPlans", "2d", (256, 256), 2),
    ("Dataset004_Hippocampus", "nnUNetResEncUNetMPlans", "3d_fullres", (40, 56, 40), 2),
    ("Dataset001_BrainTumour", "nnUNetResEncUNetMPlans", "3d_fullres", (64, 64, 32), 2),
    ("Dataset007_Pancreas", "nnUNetResEncUNetMPlans", "3d_fullres", (16, 64, 64), 2),
]


def live_on_cpu(step: Any, patch: tuple[int, ...], batch: int) -> int:
    """Peak bytes of live tensors of a step that has its momentum; parameters and momentum are there from the start."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    # What SGD chooses by itself on CUDA.
    step.optimizer.param_groups[0]["foreach"] = True
    step.train(patch, batch)
    # The profiler does not report the release of what was there before.
    step.optimizer.zero_grad(set_to_none=True)
    held = sum(p.numel() * 4 for p in step.network.parameters()) * 2
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.train(patch, batch)
    live = peak = held
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.device_type() == torch.autograd.DeviceType.CPU:
            live += event.nbytes()
            peak = max(peak, live)
    return int(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="folder with DatasetNNN_NAME/nnUNetPlans.json and dataset.json")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    from torch.utils.flop_counter import FlopCounterMode

    from ppgs.estimate.law import peak
    from ppgs.estimate.network import Network
    from ppgs.estimate.probe import Tracer
    from ppgs.nnunet.probing.step import Step
    from ppgs.plans import load_dataset, load_plans

    rows = []
    print("| plans | configuration | patch | batch | traced MiB | real MiB | error | FLOPs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for dataset, name, configuration, patch, batch in PAIRS:
        folder = asked.plans / dataset
        plan = load_plans(folder / f"{name}.json").configuration(configuration)
        network = Network.of(plan, load_dataset(folder / "dataset.json"))
        law = Tracer(network, mixed=False).law("train", patch, batch)
        traced = peak(law.events(patch, batch))
        step = Step(network.model_dump(mode="json"), "cpu")
        real = live_on_cpu(step, patch, batch)
        with FlopCounterMode(display=False) as counter:
            step.train(patch, batch)
        equal = counter.get_total_flops() == law.flops_at(patch, batch)
        rows.append(
            {
                "dataset": dataset,
                "plans": name,
                "configuration": configuration,
                "patch": patch,
                "batch": batch,
                "traced": traced,
                "real": real,
                "error": traced / real - 1,
                "flops_equal": equal,
                "flops": counter.get_total_flops(),
            }
        )
        print(
            f"| {dataset[7:]} {name} | {configuration} | {' '.join(map(str, patch))} | {batch} | "
            f"{traced / 2**20:.1f} | {real / 2**20:.1f} | {traced / real - 1:+.2%} | "
            f"{'equal' if equal else 'DIFFER'} |",
            flush=True,
        )
        del step
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
