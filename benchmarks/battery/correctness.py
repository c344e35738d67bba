"""Part 1: whether the device computes what the CPU does, and whether faults there end as they should.

Every check returns its figures with `ok`; `tests/gpu` asserts it. Dry, the device is the CPU.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from battery.data import CONFIGURATION, TINY, plans_folder, write_task
from battery.record import Part, Skip
from battery.timing import synchronise
from battery.training import begin, make_step, make_trainer, network_of, schedule_of, stages_of, use_roots

Figures = dict[str, Any]

# Largest relative error of all gradients together. Rounding to these precisions after every layer, emulated on the CPU
# for Task04, makes it 0.06 and 0.18.
_GRADIENT_ERRORS = {"float16": 0.2, "bfloat16": 0.4}
# `torch.amp.GradScaler`'s first scale: float16's small gradients would become zero.
_SCALE = 2.0**16


class Setting:
    """The task that is checked with: Task04's shapes, or the tiny task's where it is dry or there are no plans."""

    def __init__(self, root: Path, device: str, plans: Path | None, *, dry: bool) -> None:
        import torch

        self.device, self.dry = device, dry
        self.folder = plans_folder(plans, "004", dry=dry) or TINY
        self.roots = use_roots(root)
        self.task = write_task(self.folder, self.roots)
        self.torch = torch

    def trainer(
        self, stage: int, device: str | None = None, *, iterations: int = 4, epochs: int = 1, **more: Any
    ) -> Any:
        made = stages_of(self.folder, "efficiency")[stage].model_copy(update={"epochs": epochs})
        schedule = schedule_of(self.folder, [made], iterations=iterations)
        return make_trainer(self.roots, self.task, schedule, device or self.device, **more)


def take(part: Part) -> None:
    setting = Setting(part.root, part.device, part.options.plans, dry=part.dry)
    for name, (seconds, check) in CHECKS.items():
        part.item(name, seconds, partial(checked, check, setting))


def checked(check: Callable[[Setting], Figures], setting: Setting) -> Figures:
    figures = check(setting)
    if not figures["ok"]:
        raise AssertionError(str(figures)[:1500])
    return figures


def augmentation(setting: Setting) -> Figures:
    """Augment the same keys on the CPU and on the device: first and last stage."""
    found: Figures = {"ok": True}
    for stage in (0, -1):
        trainer = setting.trainer(stage, "cpu")
        try:
            dataset, keys = _unfinished(trainer)
            errors, wrong, same = [], [], []
            for key in keys:
                (here, there, again) = (
                    dataset.finish(dataset[(key,)][0], setting.torch.device(device))
                    for device in ("cpu", setting.device, setting.device)
                )
                errors.append(_error(there["data"].cpu(), here["data"]))
                pairs = zip(_targets(there), _targets(here), strict=True)
                wrong.append(max(float((a.cpu() != b).float().mean()) for a, b in pairs))
                same.append(bool(setting.torch.equal(there["data"], again["data"])))
        finally:
            trainer.close()
        found[f"stage {stage}"] = {"error": max(errors), "labels": max(wrong), "same": all(same)}
        # Labels of voxels halfway between two may round to either.
        found["ok"] &= max(errors) < 1e-3 and max(wrong) < 5e-3 and all(same)
    return found


def batch_against_singles(setting: Setting) -> Figures:
    """A batch of two, and the same samples made one by one."""
    from dataclasses import replace

    trainer = setting.trainer(-1, "cpu")
    try:
        dataset, (key, *_) = _unfinished(trainer)
        key = replace(key, batch_size=2, cases=2, held=None)
        device = setting.torch.device(setting.device)
        both = dataset.finish(dataset[(key,)][0], device)["data"]
        each = [dataset.finish(dataset[(replace(key, held=(n,)),)][0], device)["data"] for n in range(2)]
    finally:
        trainer.close()
    error = max(_error(both[n : n + 1].cpu(), one.cpu()) for n, one in enumerate(each))
    return {"ok": error < 1e-5, "error": error}


def second_stream(setting: Setting) -> Figures:
    """Batches finished on a second stream while the device is busy, against those finished in line."""
    from ppgs.nnunet.trainer import ahead

    torch = setting.torch
    device = torch.device(setting.device)
    trainer = setting.trainer(-1, "cpu")
    try:
        dataset, keys = _unfinished(trainer)
        second, load = ahead.second_stream(device), torch.randn(2 * [64 if setting.dry else 8192], device=device)
        synchronise(setting.device)
        found = []
        for key in keys * (1 if setting.dry else 20):
            batch = dataset[(key,)][0]
            if second is not None:
                # A training's stream that did not wait for this one would read the batch before it is there.
                with torch.cuda.stream(second._stream):
                    torch.mm(load, load)
            batch = dataset.finish(batch, device) if second is None else second(batch, dataset.finish)
            torch.mm(load, load)
            # Read late: the host has released the batch by then, and makes the next one.
            found.append((key, batch["data"].clone(), [target.clone() for target in _targets(batch)]))
            del batch
        wrong = 0
        for key, data, targets in found:
            alone = dataset.finish(dataset[(key,)][0], device)
            pairs = zip([data, *targets], [alone["data"], *_targets(alone)], strict=True)
            wrong += not all(torch.equal(a, b) for a, b in pairs)
    finally:
        trainer.close()
    return {"ok": wrong == 0, "batches": len(found), "wrong": wrong}


def killed_worker(setting: Setting) -> Figures:
    """A loader process that is killed while memory is pinned stops resumable with a checkpoint."""
    from ppgs.errors import ExitCode, PpgsError

    trainer = setting.trainer(0, iterations=200, workers=2, loader_timeout=60.0)
    plain, taken = trainer.train_step, 0

    def step(batch: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 3:
            for worker in trainer.dataloader_train._iterator._workers:
                os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.5)
        return plain(batch)

    trainer.train_step = step
    try:
        trainer.run_training()
    except PpgsError as error:
        saved = trainer.settings.run.checkpoint_latest.is_file()
        return {"ok": error.exit_code == ExitCode.STOPPED and saved, "error": str(error), "iterations": taken}
    finally:
        trainer.close()
    return {"ok": False, "error": "the training did not stop"}


def one_step(setting: Setting) -> Figures:
    """Loss and gradients of the trained step on the device against float32 on the CPU, on the same data."""
    torch = setting.torch
    network, facts = network_of(setting.folder)
    patch_size, batch = facts.patch_size, 2
    described = network.model_dump(mode="json")
    torch.manual_seed(0)
    reference = make_step(described, "cpu", bfloat16=False)
    data, target = reference.batch(patch_size, batch)
    state = {k: v.clone() for k, v in reference.network.state_dict().items()}
    exact = _loss_and_gradient(reference, data, target)
    found: Figures = {"ok": True, "loss": exact[0]}
    for name, bfloat16 in (("float16", False), ("bfloat16", True)):
        if setting.device == "cuda" and bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            continue
        made = make_step(described, setting.device, bfloat16=bfloat16)
        made.network.load_state_dict(state)
        device = made.device
        scale = 1.0 if bfloat16 else _SCALE
        loss, gradient = _loss_and_gradient(made, data.to(device), [t.to(device) for t in target], scale)
        error = _error(gradient.cpu(), exact[1])
        found[name] = {"loss": loss, "gradient_error": error}
        found["ok"] &= abs(loss - exact[0]) < 0.02 * abs(exact[0]) and error < _GRADIENT_ERRORS[name]
    return found


def synchronisations(setting: Setting) -> Figures:
    """Count how often an iteration waits for the device, as PyTorch reports it, by the calling operation.

    Updates without host synchronisation must not wait at all.
    """
    if setting.device != "cuda":
        raise Skip("needs CUDA")
    torch = setting.torch
    trainer = setting.trainer(0)
    try:
        begin(trainer)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            trainer.train_step(next(trainer.dataloader_train))
        torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.close()
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in heard if "synchroniz" in str(w.message)]
    return {
        "ok": trainer._steps.late is None or not places,
        "count": len(places),
        "places": {place: places.count(place) for place in sorted(set(places))},
    }


def memory_guard(setting: Setting) -> Figures:
    """A batch that does not fit is trained in parts from there on."""
    torch, said = setting.torch, []
    schedule = memory_schedule(setting)

    def emit(kind: str, **fields: Any) -> None:
        said.append(fields.get("message", ""))

    with patch.dict(os.environ, nnUNet_compile="false"):
        trainer = make_trainer(setting.roots, setting.task, schedule, setting.device, emit=emit)
    trainer.configuration_manager.configuration["batch_dice"] = False
    try:
        begin(trainer)
        if setting.device == "cuda":
            _limit_memory(setting, trainer)
        else:
            trainer.network.register_forward_pre_hook(_ShortOnce())
        result = trainer.train_step(next(trainer.dataloader_train))
    finally:
        if setting.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
        trainer.close()
    parts = [m for m in said if "parts" in m]
    return {"ok": len(parts) == 1, "said": parts, "loss": float(result["loss"])}


def memory_schedule(setting: Setting) -> Any:
    """One stage of large batches: four to learn the peaks of memory from, one that no longer fits, and one to spare."""
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 4}
    stage = stages_of(setting.folder, "efficiency")[-1]
    if setting.folder == TINY and setting.device == "cuda":
        # Its activations must count for more than the allocator's blocks.
        changes["patch_size"] = tuple(6 * n for n in stage.patch_size)
    return schedule_of(setting.folder, [stage.model_copy(update=changes)], iterations=6)


class _ShortOnce:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: Any) -> None:
        import torch

        self.calls += 1
        if self.calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def _limit_memory(setting: Setting, trainer: Any) -> None:
    """Leave the process memory for less than the whole batch, and more than half of it."""
    torch = setting.torch

    def backward(parts: int) -> None:
        trainer._steps.backward(next(trainer.dataloader_train), parts)
        trainer.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    def peak(parts: int) -> int:
        # cuDNN tries kernels at the first sight of a shape, with more memory than any of them needs.
        backward(parts)
        torch.cuda.reset_peak_memory_stats()
        backward(parts)
        return int(torch.cuda.max_memory_reserved())

    whole, half = peak(1), peak(2)
    if whole <= 1.3 * half:
        raise Skip(f"half a batch needs nearly as much memory as a whole one: {half} and {whole} bytes")
    between = (whole + half) // 2
    torch.cuda.set_per_process_memory_fraction(between / torch.cuda.get_device_properties(0).total_memory)


def resumed(setting: Setting) -> Figures:
    """Forty iterations at once, and twenty and twenty with a checkpoint between; bit-equal on the CPU alone."""
    from ppgs.errors import StoppedEarly
    from ppgs.nnunet.checkpoints.files import load_checkpoint

    half = 2 if setting.dry else 20
    whole = setting.trainer(0, iterations=2 * half, label="whole")
    whole.run_training()
    whole.close()
    asked = {"calls": 0}

    def stop() -> str | None:
        asked["calls"] += 1
        return "asked" if asked["calls"] > half else None

    first = setting.trainer(0, iterations=2 * half, label="halves", stop_requested=stop)
    try:
        first.run_training()
    except StoppedEarly:
        pass
    finally:
        first.close()
    path = first.settings.run.checkpoint_latest
    content = load_checkpoint(path)
    second = setting.trainer(0, iterations=2 * half, label="resumed")
    second.restore(content, path)
    second.run_training()
    second.close()
    losses = [t.logger.get_checkpoint()["train_losses"][-1] for t in (whole, second)]
    pairs = list(zip(whole._module.state_dict().values(), second._module.state_dict().values(), strict=True))
    norm = sum(float(a.float().norm()) ** 2 for a, _ in pairs) ** 0.5
    difference = sum(float((a.float() - b.float()).norm()) ** 2 for a, b in pairs) ** 0.5 / norm
    equal = all(setting.torch.equal(a, b) for a, b in pairs)
    stopped = content["ppgs"]["iteration"]
    close = difference < (1e-9 if setting.device == "cpu" else 0.05)
    return {
        "ok": stopped == half and close, "equal": equal, "difference": difference, "losses": losses,
        "stopped_at": stopped,
    }  # fmt: skip


def sliding_window(setting: Setting) -> Figures:
    """nnU-Net's sliding window over a whole case, in the precision of the training and on the CPU, and the pictures."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from ppgs.nnunet.network.precision import has_bfloat16, inference

    torch = setting.torch
    trainer = setting.trainer(0, iterations=2)
    trainer.run_training()
    trainer.close()
    pictures = len(list(trainer.settings.run.slices.glob("*")))
    module, logits = trainer._module, []
    trainer.set_deep_supervision_enabled(False)
    case = trainer.dataset_class(trainer.preprocessed_dataset_folder, ["case_000"]).load_case("case_000")[0][:]
    for device in ("cpu", setting.device):
        predictor = nnUNetPredictor(device=torch.device(device), allow_tqdm=False)
        predictor.manual_initialization(
            module.to(device), trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
            "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
        with inference(torch.device(device), bfloat16=has_bfloat16(torch.device(device))):
            logits.append(predictor.predict_sliding_window_return_logits(torch.from_numpy(case)).cpu().float())
    wrong = float((logits[0].argmax(0) != logits[1].argmax(0)).float().mean())
    finite = all(bool(one.isfinite().all()) for one in logits)
    return {
        "ok": finite and wrong < 0.02 and pictures > 0, "other_classes": wrong, "pictures": pictures,
        "configuration": CONFIGURATION,
    }  # fmt: skip


CHECKS: dict[str, tuple[float, Callable[[Setting], Figures]]] = {
    "augmentation on the CPU and on the device": (30, augmentation),
    "a batch of two and singles": (15, batch_against_singles),
    "batches finished on a second stream": (15, second_stream),
    "one step against float32 on the CPU": (40, one_step),
    "a killed worker under pinned memory": (60, killed_worker),
    "synchronisations of an iteration": (60, synchronisations),
    "memory that runs out": (60, memory_guard),
    "a resumed training": (120, resumed),
    "sliding window and pictures": (90, sliding_window),
}


def _unfinished(trainer: Any) -> tuple[Any, list[Any]]:
    """The trainer's batches as a GPU gets them, to be augmented by `finish`, and two keys."""
    from itertools import islice

    trainer.get_dataloaders()
    dataset = trainer._dataset
    dataset._finished = dataset.takes_groups = False
    from ppgs.nnunet.data.keys import KeySampler

    settings = trainer.settings
    return dataset, list(islice(KeySampler(settings.schedule, settings.seed), 2))


def _targets(batch: Any) -> list[Any]:
    target = batch["target"]
    return target if isinstance(target, list) else [target]


def _error(found: Any, exact: Any) -> float:
    return float((found - exact).norm() / exact.norm())


def _loss_and_gradient(step: Any, data: Any, target: Any, scale: float = 1.0) -> tuple[float, Any]:
    import torch

    step.optimizer.zero_grad(set_to_none=True)
    with step._network_precision():
        output = step.network(data)
    with step._precision():
        loss = step.loss([o.float() for o in output], target)
    (loss * scale).backward()
    synchronise(step.device.type)
    gradient = torch.cat([p.grad.float().flatten() for p in step.network.parameters() if p.grad is not None])
    return float(loss.detach()), gradient / scale
