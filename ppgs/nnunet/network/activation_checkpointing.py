"""Activation checkpointing of nnU-Net's U-Nets: activations inside a stage are recomputed in backward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


def checkpoint_activations(network: nn.Module, contexts: Contexts | None = None) -> int:
    """Keep only the inputs of every stage of encoder and decoder; return the number of stages wrapped.

    Gradients stay those of the plain network (same operations on the same values, computed twice); state dict and
    module names do not change. `contexts` gives contexts for the forward pass and the recomputation, which a compiled
    network cannot have. Raises ValueError where the network has no encoder or decoder stages.
    """
    stages = stages_of(network)
    for stage in stages:
        stage.forward = _checkpointed(stage.forward, contexts)
    return len(stages)


def stages_of(network: nn.Module) -> list[Any]:
    """Return the stages of encoder and decoder; raises ValueError for a network without."""
    stages = [s for part in ("encoder", "decoder") for s in getattr(getattr(network, part, None), "stages", ())]
    if not stages:
        raise ValueError(f"{type(network).__name__} has no encoder and decoder stages to checkpoint")
    return stages


def keep_activations(network: nn.Module) -> None:
    """Undo `checkpoint_activations`; do nothing if it was not applied."""
    for part in ("encoder", "decoder"):
        for stage in getattr(getattr(network, part, None), "stages", ()):
            stage.__dict__.pop("forward", None)


def _checkpointed(forward: Callable[..., Any], contexts: Contexts | None) -> Callable[..., Any]:
    # torch.compile refuses any function of contexts but PyTorch's own default.
    options: dict[str, Any] = {} if contexts is None else {"context_fn": contexts}

    def wrapped(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=True, **options)

    return wrapped
