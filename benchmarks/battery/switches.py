"""Part 2: the trained step with each switch turned: compiled or not, as a CUDA graph, precision, memory layout."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from battery.data import plans_folder
from battery.record import Part, Skip
from battery.timing import synchronise, timed
from battery.training import make_step, network_of, stages_of

# Task, stages (from 1; None: a patch of this size at batch 2), whether it is large.
_POINTS: tuple[tuple[str, tuple[int, ...] | int], ...] = (
    ("004", 1), ("004", 8), ("004", -1), ("001", (32, 32, 32)), ("001", (96, 96, 64)), ("001", (128, 128, 128)),
    ("002", 1), ("002", -1),
)  # fmt: skip
# The likeliest choices first: what the clock leaves out is what matters least.
_WAYS = (("compiled", True), ("eager", True), ("graph", True), ("compiled", False), ("eager", False))


def take(part: Part) -> None:
    points = _POINTS[:1] if part.dry else _POINTS
    for (way, bfloat16), (task, which) in itertools.product(_WAYS, points):
        name = f"Task{task[1:]} {which} {way} {'bfloat16' if bfloat16 else 'float16'}"
        part.item(name, 60 if way != "eager" else 15, lambda t=task, w=which, y=way, b=bfloat16: step(part, t, w, y, b))
    for task, which in points[-1:] if part.dry else (("001", (128, 128, 128)), ("002", -1)):
        part.item(
            f"Task{task[1:]} {which} compiled bfloat16 channels last", 60,
            lambda t=task, w=which: step(part, t, w, "compiled", True, channels_last=True),
        )  # fmt: skip


def step(
    part: Part, task: str, which: tuple[int, ...] | int, way: str, bfloat16: bool, *, channels_last: bool = False
) -> dict[str, Any]:
    import torch

    from ppgs.nnunet.network.layout import lay_channels_last

    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    if way != "eager" and part.device != "cuda" and not part.dry:
        raise Skip("needs CUDA")
    network, facts = network_of(folder)
    if isinstance(which, int):
        stages = stages_of(folder, "efficiency")
        stage = stages[which - 1 if which > 0 else which]
        patch, batch = stage.patch_size, stage.batch_size
    else:
        patch, batch = which, facts.batch_size
    torch._dynamo.reset()
    torch.backends.cudnn.benchmark = True
    made = make_step(network.model_dump(mode="json"), part.device, bfloat16=bfloat16 and part.device == "cuda")
    # A training gets its batches from the loader; noise made in every step would be timed with it.
    given = made.batch(patch, batch)
    made.batch = lambda *_: given
    if channels_last:
        lay_channels_last(made.network)
    if way != "eager":
        # Nothing is compiled on the CPU: see nnU-Net's own rule.
        made.compile()
    run: Any = partial(made.train, patch, batch)
    if way == "graph" and part.device == "cuda":
        run = captured(made, patch, batch)
    if part.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found = timed(run, part.device, seconds=0.1 if part.dry else 1.5)
    found |= {"patch": patch, "batch": batch, "kernels": kernels(run) if part.device == "cuda" else None}
    if part.device == "cuda":
        found |= {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
        }
    del run, made
    if part.device == "cuda":
        torch.cuda.empty_cache()
    return found


def captured(made: Any, patch: Any, batch: int) -> Any:
    """The step as one CUDA graph: same arithmetic, but the loss is not read."""
    import torch

    from ppgs.nnunet.network import optimiser as updates

    data, target = made.batch(patch, batch)
    parameters = list(made.network.parameters())

    def whole() -> Any:
        made.optimizer.zero_grad(set_to_none=False)
        with made._network_precision():
            output = made.network(data)
        with made._precision():
            loss = made.loss([o.float() for o in output], target)
        loss.backward()
        updates.clip(parameters, wait=False)
        made.optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            whole()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        whole()
    return graph.replay


def kernels(run: Any) -> int:
    """Kernels and copies of one call."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        run()
        synchronise("cuda")
    return sum(event.device_type.name == "CUDA" for event in watched.events())
