"""Parameters that a fine-tuning does not change."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ppgs.errors import BadInput, Problems

_EXAMPLES = 8


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Exclude the parameters whose names match a pattern from training, and return their names.

    Without a gradient, an optimiser neither updates a parameter nor applies weight decay to it. Raises `BadInput` for
    a pattern that matches nothing, and where nothing is left to train.
    """
    # Each under one name: nnU-Net's decoder holds the encoder too.
    parameters = dict(network.named_parameters())
    problems = Problems()
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            step = max(1, len(parameters) // _EXAMPLES)
            some = ", ".join(list(parameters)[::step][:_EXAMPLES])
            problems.add(f"no parameter matches '{pattern}'", "--freeze", f"some names: {some}")
    problems.raise_as(BadInput, "the parameters to freeze are not in the network")
    frozen = [name for name in parameters if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if len(frozen) == len(parameters):
        raise BadInput("all parameters are frozen: nothing is left to train", "--freeze", "leave some out")
    for name in frozen:
        parameters[name].requires_grad_(False)
    return frozen
