"""Weights that a training starts from: read without executing anything, matched as nnU-Net does.

nnU-Net's own `load_pretrained_weights` unpickles whatever is in the file, and names one layer of those that differ.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs import upstream
from ppgs.errors import BadInput, PlansError, Problems
from ppgs.formatting import patch_text
from ppgs.nnunet.checkpoints.content import content_digest
from ppgs.nnunet.checkpoints.files import is_of_code, load_safely
from ppgs.plans import parse_plans

# Put before the names of layers by DistributedDataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# What of a configuration must agree for the weights to see what they were trained on.
_COMPARED = {
    "spacing": "spacing",
    "normalization_schemes": "normalisation",
    "patch_size": "patch size",
    "architecture": "network",
}
_INTENSITIES = "foreground_intensity_properties_per_channel"
_LISTED = 20


@dataclass(frozen=True)
class Pretrained:
    """Weights of a checkpoint, and the plans that it was trained with if it contains them."""

    weights: dict[str, torch.Tensor]
    plans: dict[str, Any] = field(default_factory=dict)
    configuration: str = ""

    def facts(self, source: str) -> dict[str, str]:
        """Return the facts for the manifest."""
        found = {"source": source, "digest": content_digest(self.weights)}
        if self.plans:
            found |= {
                "dataset": self.plans["dataset_name"],
                "plans": self.plans["plans_name"],
                "configuration": self.configuration,
            }
        return found

    def advice(self, plans: dict[str, Any], configuration: str, task: str, source: str) -> str | None:
        """Return what to tell of plans other than the checkpoint's, whose file is `source`; None if they agree."""
        if not (different := self.differences(plans, configuration)):
            return None
        command = f"ppgs prepare {shlex.quote(task)} --plans-from {shlex.quote(source)}"
        return (
            f"the checkpoint was trained with other plans ({', '.join(different)}): "
            f"'{command}' makes plans that match it"
        )

    def differences(self, plans: dict[str, Any], configuration: str) -> list[str]:
        """Return the differences between the plans of the checkpoint and these, of which some facts may be unknown."""
        if not self.plans:
            return []
        theirs, mine = PlansManager(self.plans), PlansManager(plans)
        before = theirs.get_configuration(self.configuration).configuration
        now = mine.get_configuration(configuration).configuration
        found = [text for key, text in _COMPARED.items() if key in now and before.get(key) != now[key]]
        # Other normalisations do not read them.
        by_intensities = "CTNormalization" in now.get("normalization_schemes", ())
        if by_intensities and theirs.plans.get(_INTENSITIES) != mine.plans.get(_INTENSITIES):
            found.append("intensities")
        return found


def read_pretrained(path: Path | IO[bytes], source: str) -> Pretrained:
    """Read a checkpoint of ppgs or of nnU-Net; `source` is what the user gave. Raises `BadInput`."""
    try:
        content = load_safely(path)
    except Exception as problem:  # torch raises many kinds for the many ways in which a file can be broken
        raise BadInput(
            "the checkpoint holds code, which was not run" if is_of_code(problem) else "the checkpoint cannot be read",
            source,
            "give a checkpoint of ppgs or nnU-Net, as they write it",
        ) from None
    weights = content.get(upstream.WEIGHTS) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise BadInput(f"the file has no '{upstream.WEIGHTS}'", source, "give a checkpoint of ppgs or nnU-Net")
    plans, configuration = _plans_of(content.get("init_args"))
    return Pretrained({_plain(name): value for name, value in weights.items()}, plans, configuration)


def _plain(name: str) -> str:
    """Return the layer's name without the prefixes of wrapped networks."""
    while (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _plans_of(arguments: Any) -> tuple[dict[str, Any], str]:
    """Return plans and configuration of a trainer's arguments; empty unless they are nnU-Net's and trusted."""
    try:
        plans, configuration = arguments["plans"], arguments["configuration"]
        parse_plans(plans).configuration(configuration)
    except (TypeError, KeyError, PlansError):
        return {}, ""
    return {key: value for key, value in plans.items() if key != "continue_training"}, configuration


def matching(state: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the network's `state` with the pretrained weights of all layers but the segmentation heads.

    Raises `BadInput` with every layer that is missing or has another shape, and both shapes.
    """
    problems, seen = Problems(), set()
    merged = dict(state)
    for name, mine in state.items():
        if upstream.SEGMENTATION_HEADS in name:
            continue
        theirs = weights.get(name)
        if theirs is not None and theirs.shape == mine.shape:
            merged[name] = theirs
        # nnU-Net's U-Nets name their encoder's weights four times.
        elif mine.data_ptr() not in seen:
            seen.add(mine.data_ptr())
            there = "missing" if theirs is None else _shape(theirs)
            problems.add(f"{name}: {there} in the checkpoint, {_shape(mine)} in the network")
    if problems.found:
        more = len(problems.found) - _LISTED
        problems.found = problems.found[:_LISTED]
        if more > 0:
            problems.add(f"and {more} more")
        problems.raise_as(BadInput, "the pretrained weights do not match the network")
    return merged


def _shape(tensor: torch.Tensor) -> str:
    return patch_text(tensor.shape) or "scalar"
