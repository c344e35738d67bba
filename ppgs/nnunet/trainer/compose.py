"""The curriculum on top of any nnU-Net trainer class: its methods come first, that class's next, nnU-Net's last."""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from ppgs.errors import BadInput
from ppgs.formatting import first_line, patch_text
from ppgs.imports import BrokenInstallation
from ppgs.nnunet.host.determinism import refusals
from ppgs.nnunet.host.out_of_memory import is_out_of_memory
from ppgs.nnunet.network.evaluation import evaluating
from ppgs.nnunet.network.precision import autocast
from ppgs.nnunet.network.small_patches import allow_small_patches
from ppgs.trainers import DEFAULT, Trainers


def find_trainer(name: str) -> Any:
    """Return the nnU-Net trainer class of that name, imported from its own module only.

    Raises `BadInput` for an unknown class or one that cannot be imported, `BrokenInstallation` where a package that it
    needs is missing.
    """
    if name == DEFAULT:
        return nnUNetTrainer
    (described, *_) = Trainers.of(os.environ).line(name)
    if not described.module.startswith("nnunetv2.") and str(described.folder) not in sys.path:
        # It stays on the path: loader workers import it too.
        sys.path.append(str(described.folder))
    try:
        return getattr(import_module(described.module), name)
    except Exception as error:
        if (broken := BrokenInstallation.of(error)) is not None:
            raise broken from None
        raise BadInput(
            f"the trainer cannot be imported: {type(error).__name__}: {error}", described.file, "mend it"
        ) from None


def compose(label: str, curriculum: type[Any], name: str) -> type[Any]:
    """Make a class called `label`: `curriculum` (a subclass of `nnUNetTrainer`) over the trainer class `name`."""
    base = find_trainer(name)
    # A method that the curriculum has and nnU-Net has not would hide the trainer's own of the same name.
    own = {one for kind in base.__mro__[: base.__mro__.index(nnUNetTrainer)] for one in vars(kind)}
    added = {one for one in vars(curriculum) if not one.startswith("__")} - set(dir(nnUNetTrainer))
    if hidden := sorted(own & added):
        raise BadInput(f"{name} has a method that the curriculum needs the name of", f"{name}.{hidden[0]}", "rename it")
    bases = (curriculum,) if base is nnUNetTrainer else (curriculum, base)
    return type(label, bases, {"nnunet_trainer": base, "build_network_architecture": staticmethod(builder(base))})


def builder(base: Any) -> Any:
    """Return a `build_network_architecture` whose networks accept patches as small as the first stage's."""

    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        # nnUNetTrainer.initialize inspects the signature. A lab's class may still have nnU-Net's former one.
        build, configuration = base.build_network_architecture, configuration_manager
        if "plans_manager" in inspect.signature(build).parameters:
            described: tuple[Any, ...] = (plans_manager, configuration)
        else:
            described = (
                configuration.network_arch_class_name,
                configuration.network_arch_init_kwargs,
                configuration.network_arch_init_kwargs_req_import,
            )
        return allow_small_patches(build(*described, num_input_channels, num_output_channels, enable_deep_supervision))

    return build_network_architecture


def check_patches(trainer: Any) -> None:
    """Raise `BadInput` if a network that the trainer class builds itself fails on the patches of a stage.

    The patches of the stages are multiples of the plan's strides; nnU-Net itself trains on the plan's patch alone.
    """
    kind = trainer.nnunet_trainer
    if kind.build_network_architecture is nnUNetTrainer.build_network_architecture:
        return
    checked = {tuple(trainer.configuration_manager.patch_size)}
    for number, stage in enumerate(trainer.settings.schedule.stages, start=1):
        if stage.patch_size in checked:
            continue
        checked.add(stage.patch_size)
        sample = torch.zeros((1, trainer.num_input_channels, *stage.patch_size), device=trainer.device)
        precision = autocast(trainer.device, bfloat16=trainer.settings.bfloat16)
        try:
            with evaluating(trainer._module, trainer.device), precision, refusals():
                trainer._module(sample)
        except (RuntimeError, ValueError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            raise BadInput(
                f"the network of {kind.__name__} fails on the patch {patch_text(stage.patch_size)} of stage {number}: "
                f"{first_line(error)}",
                f"--trainer {kind.__name__}",
                "begin with a patch that the network takes (--start-patch), or train on the plan's patch alone "
                "(--schedule constant)",
            ) from None
