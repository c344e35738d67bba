"""The content of a checkpoint: nnU-Net's own keys, so that stock nnU-Net reads it, plus all that an exact resume needs.

A new field is written in `content_of` and read in `restore_into`, with a default for checkpoints that lack it.
"""

from __future__ import annotations

import hashlib
import random
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ppgs.errors import RunError
from ppgs.schedule import Schedule

# 3: with a digest of the content. What was written as 1 and 2 is still read, without this check.
FORMAT = 3


class Facts(Protocol):
    """Settings of a trainer that a checkpoint is checked against."""

    @property
    def schedule(self) -> Schedule: ...
    @property
    def seed(self) -> int: ...
    @property
    def bfloat16(self) -> bool: ...
    @property
    def schedules(self) -> frozenset[str]: ...


class Trained(Protocol):
    """The part of a trainer that goes into a checkpoint."""

    @property
    def settings(self) -> Facts: ...

    nnunet_trainer: Any
    optimizer: Any
    grad_scaler: Any
    logger: Any
    my_init_kwargs: Any
    current_epoch: int
    _best_ema: float | None
    inference_allowed_mirroring_axes: Any


def content_of(
    trainer: Trained, network: torch.nn.Module, epochs_done: int, iteration: int, losses: list[float]
) -> dict[str, Any]:
    """Build a checkpoint after `epochs_done` epochs and `iteration` iterations of the next one, with their `losses`."""
    # A stop within an epoch leaves entries of that epoch, which is logged again.
    logging = {key: values[:epochs_done] for key, values in trainer.logger.get_checkpoint().items()}
    scaler, base = trainer.grad_scaler, trainer.nnunet_trainer
    plain: dict[str, Any] = to_plain(
        {
            "network_weights": dict(network.state_dict()),
            "optimizer_state": trainer.optimizer.state_dict(),
            "grad_scaler_state": scaler.state_dict() if scaler is not None else None,
            "logging": logging,
            "_best_ema": trainer._best_ema,
            "current_epoch": epochs_done,
            "init_args": trainer.my_init_kwargs,
            # The network is that class's own: stock nnU-Net needs no other to use it.
            "trainer_name": base.__name__,
            "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        }
    )
    plain["ppgs"] = {
        "format": FORMAT,
        "schedule": trainer.settings.schedule.digest,
        "seed": trainer.settings.seed,
        "iteration": iteration,
        "losses": list(losses) if iteration else [],
        # For prediction, on a GPU, in the precision of the training.
        "bfloat16": trainer.settings.bfloat16,
        # Where the class is missing, only nnU-Net's network can be built without it.
        "own_network": base.build_network_architecture is not nnUNetTrainer.build_network_architecture,
        "random": random_states(),
    }
    return plain


def restore_into(
    trainer: Trained, network: torch.nn.Module, content: dict[str, Any], where: Path
) -> tuple[int, list[float]]:
    """Restore a trainer from a checkpoint; return the iterations done of its epoch, and their losses.

    Raises `RunError` when it belongs to another schedule or seed. nnUNetTrainer.load_checkpoint takes only a file name,
    and unpickles whatever is in the file.
    """
    own, settings = content.get("ppgs"), trainer.settings
    if not isinstance(own, dict):
        raise RunError("the checkpoint is plain nnU-Net's, not one of ppgs", where)
    for name, mine in (("schedule", settings.schedule.digest), ("seed", settings.seed)):
        if own[name] != mine and not (name == "schedule" and own[name] in settings.schedules):
            raise RunError(
                f"the checkpoint was made with another {name} ({own[name]}, the run says {mine})",
                where,
                "restore the run's own schedule.yaml and run.json",
            )
    network.load_state_dict(content["network_weights"])
    trainer.optimizer.load_state_dict(content["optimizer_state"])
    if trainer.grad_scaler is not None and content["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(content["grad_scaler_state"])
    trainer.logger.load_checkpoint(deepcopy(content["logging"]))
    trainer.current_epoch = content["current_epoch"]
    trainer._best_ema = content["_best_ema"]
    trainer.inference_allowed_mirroring_axes = content["inference_allowed_mirroring_axes"]
    restore_random_states(own["random"])
    return own["iteration"], list(own["losses"])


def to_plain(value: Any) -> Any:
    """Convert to Python's own numbers and containers and CPU tensors, which `weights_only` loading accepts.

    A tensor that is there under several names is copied once: nnU-Net's U-Nets name their encoder's weights four times.
    """
    return _to_plain(value, {})


def _to_plain(value: Any, copies: dict[tuple[Any, ...], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        place = _place(value)
        if place not in copies:
            # In one layout, whatever that of the training (`ppgs.nnunet.network.layout`).
            copies[place] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return copies[place]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {k: _to_plain(v, copies) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_plain(v, copies) for v in value)
    return value


def content_digest(value: Any) -> str:
    """Return a hash of tensors (type, shape and bytes) and plain values, for the result of `to_plain`.

    A tensor that is there under several names is read once.
    """
    made = hashlib.blake2b(digest_size=20)
    known: dict[tuple[Any, ...], bytes] = {}

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            place = _place(part)
            if place not in known:
                known[place] = _bytes_digest(part)
            made.update(f"tensor {part.dtype} {tuple(part.shape)};".encode() + known[place])
        elif isinstance(part, dict):
            made.update(f"dict {len(part)};".encode())
            for key, inner in part.items():
                made.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(part, (list, tuple)):
            made.update(f"{type(part).__name__} {len(part)};".encode())
            for inner in part:
                add(inner)
        else:
            made.update(f"{type(part).__name__} {part!r};".encode())

    add(value)
    return made.hexdigest()


def _bytes_digest(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    return hashlib.blake2b(content, digest_size=20).digest()


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a key that is equal for tensors with the same storage, offset and strides."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def random_states() -> dict[str, Any]:
    """Return the state of every random generator of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in states["cuda"]])
