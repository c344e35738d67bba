"""Part 5: the first stage of `performance`, whose crops ask most of the data path: waiting, augmentation, a step."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from battery.data import plans_folder, write_task
from battery.record import Part, Skip
from battery.timing import synchronise, timed
from battery.training import begin, make_trainer, schedule_of, stages_of, use_roots


def take(part: Part) -> None:
    for task in ("004",) if part.dry else ("004", "001", "002"):
        part.item(f"Task{task[1:]} data wait", 60, lambda t=task: data_wait(part, t))
        part.item(f"Task{task[1:]} augmentation and profile", 40, lambda t=task: profiled(part, t))
        part.item(f"Task{task[1:]} second stream", 40, lambda t=task: overlapped(part, t))


def first_stage(part: Part, task: str, iterations: int, **settings: Any) -> Any:
    folder = plans_folder(part.options.plans, task, dry=part.dry)
    if folder is None:
        raise Skip("the task's plans are not there")
    roots = use_roots(part.root)
    name = write_task(folder, roots)
    import torch

    from ppgs.nnunet.host.devices import default_workers

    stage = stages_of(folder, "performance")[0].model_copy(update={"epochs": 3})
    workers = 0 if part.dry else default_workers(torch.device(part.device))
    schedule = schedule_of(folder, [stage], iterations=iterations)
    return make_trainer(roots, name, schedule, part.device, workers=workers, **settings)


def data_wait(part: Part, task: str) -> dict[str, Any]:
    epochs: list[dict[str, Any]] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "epoch_finished":
            epochs.append(fields)

    trainer = first_stage(part, task, 2 if part.dry else 60, emit=emit)
    try:
        trainer.run_training()
    finally:
        trainer.close()
    last = epochs[1:]
    return {
        "patch": trainer.settings.schedule.stages[0].patch_size,
        "batch": trainer.settings.schedule.stages[0].batch_size,
        "workers": trainer.settings.workers,
        "epochs": epochs,
        "data_wait_share": median(e["data_wait_seconds"] / e["train_seconds"] for e in last),
    }


def profiled(part: Part, task: str) -> dict[str, Any]:
    """Milliseconds of augmenting a batch on the device and of a whole iteration, and what takes them."""
    from torch.profiler import ProfilerActivity, profile

    trainer = first_stage(part, task, 30)
    try:
        begin(trainer)
        batches = [next(trainer.dataloader_train) for _ in range(3 if part.dry else 12)]
        spent = iter(batches)
        device = trainer.device
        augmented = timed(
            lambda: trainer._dataset.finish(next(spent), device), part.device, warm=1,
            least=1 if part.dry else 10, seconds=0,
        )  # fmt: skip
        whole = timed(lambda: trainer.train_step(batches[0]), part.device, warm=2, least=3, seconds=0)
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if part.device == "cuda" else [])]
        fresh = next(trainer.dataloader_train)
        with profile(activities=kinds) as watched:
            trainer.train_step(fresh)
            synchronise(part.device)
        order = "self_device_time_total" if part.device == "cuda" else "self_cpu_time_total"
        rows = sorted(watched.key_averages(), key=lambda row: -getattr(row, order))[:25]
    finally:
        trainer.close()
    return {
        "augmentation": augmented,
        "train_step": whole,
        "operators": [{"name": r.key, "calls": r.count, "us": getattr(r, order)} for r in rows],
    }


def overlapped(part: Part, task: str) -> dict[str, Any]:
    """Milliseconds of an iteration whose batch is finished on the second stream or in line, and the peaks of memory."""
    import torch

    count = 2 if part.dry else 20
    trainer, found = first_stage(part, task, 3 * count), {}
    try:
        begin(trainer)
        steps, batches = trainer._steps, trainer.dataloader_train
        second = steps._second_stream
        for name, chosen in (("warm", second), ("second stream", second), ("in line", None)):
            steps._second_stream = chosen
            ready = [next(batches) for _ in range(count)]
            if part.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            synchronise(part.device)
            started = time.perf_counter()
            for batch in ready:
                trainer.train_step(batch)
            synchronise(part.device)
            found[name] = {"ms": 1e3 * (time.perf_counter() - started) / count}
            if part.device == "cuda":
                found[name]["reserved"] = torch.cuda.max_memory_reserved()
    finally:
        trainer.close()
    return found
