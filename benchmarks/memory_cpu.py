"""Traced live bytes and FLOPs against real training steps on the CPU: same network, same precision (float32).

The real step runs under PyTorch's profiler, whose memory events give the peak of live bytes, and under FlopCounterMode.
What a convolution takes and gives back before it returns is separated: it is the scratchpad of the kernel that oneDNN
chose, no tensor of the step, and grows with the threads (`--threads`), not with the batch. On CUDA its counterpart is
cuDNN's workspace, which the estimate has as a separate figure.

    python benchmarks/memory_cpu.py ../shared/msd [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAIRS: list[tuple[str, str, str, tuple[int, ...], int]] = [
    ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", (8, 8, 8), 9),
    ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", (24, 24, 24), 9),
    ("Dataset004_Hippocampus", "nnUNetPlans", "3d_fullres", (40, 56, 40), 2),
    ("Dataset001_BrainTumour", "nnUNetPlans", "3d_fullres", (64, 64, 64), 2),
    ("Dataset005_Prostate", "nnUNetPlans", "3d_fullres", (8, 128, 128), 2),
    ("Dataset003_Liver", "nnUNetPlans", "2d", (256, 256), 2),
    ("Dataset004_Hippocampus", "nnUNetResEncUNetMPlans", "3d_fullres", (8, 8, 8), 2),
    ("Dataset004_Hippocampus", "nnUNetResEncUNetMPlans", "3d_fullres", (40, 56, 40), 2),
    ("Dataset001_BrainTumour", "nnUNetResEncUNetMPlans", "3d_fullres", (64, 64, 32), 2),
    ("Dataset007_Pancreas", "nnUNetResEncUNetMPlans", "3d_fullres", (16, 64, 64), 2),
    ("Dataset003_Liver", "nnUNetResEncUNetMPlans", "2d", (256, 256), 2),
]


@dataclass(frozen=True)
class Live:
    """Peak bytes of a step: of its tensors, and with what convolutions borrow while they run."""

    tensors: int
    everything: int


def live_on_cpu(step: Any, patch: tuple[int, ...], batch: int) -> Live:
    """Peak bytes of a step that has its momentum; parameters and momentum are there from the start."""
    from torch.profiler import ProfilerActivity, profile

    # What SGD chooses on its own on CUDA.
    step.optimizer.param_groups[0]["foreach"] = True
    step.train(patch, batch)
    # The profiler does not report the release of what was there before.
    step.optimizer.zero_grad(set_to_none=True)
    held = sum(p.numel() * 4 for p in step.network.parameters()) * 2
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.train(patch, batch)
    events = sorted(_memory_events(profiler), key=lambda e: e.start_time_ns)
    borrowed = _borrowed(events)
    live = tensors = everything = held
    lent = 0
    for number, event in enumerate(events):
        live += event.extra_fields.alloc_size
        lent += event.extra_fields.alloc_size if number in borrowed else 0
        everything, tensors = max(everything, live), max(tensors, live - lent)
    return Live(int(tensors), int(everything))


def _memory_events(profiler: Any) -> list[Any]:
    found, left = [], list(profiler.profiler.kineto_results.experimental_event_tree())
    while left:
        event = left.pop()
        left += event.children
        if event.name == "[memory]":
            found.append(event)
    return found


def _borrowed(events: list[Any]) -> set[int]:
    """Numbers of the events that take and give back bytes within one and the same convolution."""
    found: set[int] = set()
    open_at: dict[int, int] = {}
    for number, event in enumerate(events):
        pointer = event.extra_fields.ptr
        if event.extra_fields.alloc_size > 0:
            open_at[pointer] = number
        elif pointer in open_at:
            taken = open_at.pop(pointer)
            operation = events[taken].parent
            if operation is not None and event.parent == operation and "conv" in operation.name:
                found |= {taken, number}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="folder with DatasetNNN_NAME/nnUNetPlans.json and dataset.json")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ppgs.estimate.network import Network
    from ppgs.estimate.scaling import peak
    from ppgs.estimate.tracer import Tracer
    from ppgs.nnunet.probing.step import Step
    from ppgs.plans import load_dataset, load_plans

    if asked.threads:
        torch.set_num_threads(asked.threads)
    rows = []
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| plans | configuration | patch | batch | traced MiB | real MiB | error | with scratchpads MiB | FLOPs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
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
                "real": real.tensors,
                "error": traced / real.tensors - 1,
                "real_with_scratchpads": real.everything,
                "flops_equal": equal,
                "flops": counter.get_total_flops(),
            }
        )
        print(
            f"| {dataset[7:]} {name} | {configuration} | {' '.join(map(str, patch))} | {batch} | "
            f"{traced / 2**20:.1f} | {real.tensors / 2**20:.1f} | {traced / real.tensors - 1:+.2%} | "
            f"{real.everything / 2**20:.1f} | {'equal' if equal else 'DIFFER'} |",
            flush=True,
        )
        del step
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
