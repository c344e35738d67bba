"""Networks beside nnU-Net's own: UNETR and SwinUNETR of MONAI (optional extra `monai`), and how to add others.

Any network can be trained that the plans describe, `architecture` of a configuration:

- `network_class_name`, `arch_kwargs`, `_kw_requires_import`: as nnU-Net has them. The class is called with
  `input_channels`, `num_classes`, `deep_supervision` and the `arch_kwargs`; it maps (b, c, z, y, x) to logits
  (b, classes, z, y, x), with deep supervision to a list of them.
- `ppgs`: `step`, what patch sizes are multiples of, by axis; `smallest_patch` where that is more than one step;
  `deep_supervision: false` for networks without it. nnU-Net takes no notice of this key.

nnU-Net's optimiser and learning rate are kept. Since plans may come from strangers, only networks of nnU-Net and of
this module are imported; for your own, name its module in the environment variable `PPGS_TRUSTED_MODULES`.
"""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from torch import nn

from ppgs.errors import PlansError


class MonaiPlanner(ExperimentPlanner):
    """nnU-Net's planning with another network in the 3D configurations; preprocessed cases are those of `nnUNetPlans`.

    The patch is nnU-Net's, in whole steps and two at least on every axis, so that there is something to grow.
    """

    plans_name: ClassVar[str]
    network: ClassVar[str]
    step: ClassVar[int]

    def __init__(self, dataset: str) -> None:
        if importlib.util.find_spec("monai") is None:
            raise PlansError(f"{self.network} needs MONAI", self.plans_name, "pip install monai")
        super().__init__(dataset, plans_name=self.plans_name)

    def generate_data_identifier(self, configuration_name: str) -> str:
        return f"nnUNetPlans_{configuration_name}"

    def arguments(self, patch: list[int]) -> dict[str, Any]:
        """Return the network's own arguments for this final patch (z, y, x)."""
        raise NotImplementedError

    def save_plans(self, plans: dict[str, Any]) -> None:
        for name, configuration in plans["configurations"].items():
            if name == "2d" or "patch_size" not in configuration:
                continue
            patch = [max(2, round(int(p) / self.step)) * self.step for p in configuration["patch_size"]]
            configuration["patch_size"] = patch
            configuration["architecture"] = {
                "network_class_name": f"{__name__}.{self.network}",
                "arch_kwargs": self.arguments(patch),
                "_kw_requires_import": [],
                "ppgs": {"step": [self.step] * len(patch), "deep_supervision": False},
            }
        super().save_plans(plans)


class UnetrPlanner(MonaiPlanner):
    """UNETR: tokens of 16 voxels a side, so patches grow by 16."""

    plans_name = "nnUNetUNETRPlans"
    network = "Unetr"
    step = 16

    def arguments(self, patch: list[int]) -> dict[str, Any]:
        return {"img_size": patch, "feature_size": 16, "hidden_size": 768, "mlp_dim": 3072, "num_heads": 12}


class SwinUnetrPlanner(MonaiPlanner):
    """SwinUNETR: five halvings, so patches grow by 32."""

    plans_name = "nnUNetSwinUNETRPlans"
    network = "SwinUnetr"
    step = 32

    def arguments(self, _: list[int]) -> dict[str, Any]:
        return {"feature_size": 24}


def _refuse(deep_supervision: bool, name: str) -> None:
    if deep_supervision:
        raise PlansError(f"{name} has no deep supervision", "architecture.ppgs.deep_supervision", "say false")


def Unetr(input_channels: int, num_classes: int, deep_supervision: bool = False, **arguments: Any) -> nn.Module:
    """Build MONAI's UNETR for patches of any size by interpolating its position embedding, made for the final patch."""
    from monai.networks.nets.unetr import UNETR

    class AnySize(UNETR):
        def forward(self, x_in: torch.Tensor) -> torch.Tensor:
            # What comes out of the transformer is folded back into the grid of tokens.
            self.proj_view_shape = [*(size // 16 for size in x_in.shape[2:]), self.hidden_size]
            logits: torch.Tensor = super().forward(x_in)
            return logits

    _refuse(deep_supervision, "UNETR")
    network = AnySize(in_channels=input_channels, out_channels=num_classes, **arguments)
    embedding = network.vit.patch_embedding
    embedding.forward = _AnySizeEmbedding(embedding, tuple(network.feat_size))
    return network


class _AnySizeEmbedding:
    """The forward pass of MONAI's `PatchEmbeddingBlock` with positions interpolated to the grid there is."""

    def __init__(self, embedding: Any, grid: tuple[int, ...]) -> None:
        self._embedding, self._grid = embedding, grid

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        embedding = self._embedding
        tokens = embedding.patch_embeddings(x)
        positions = embedding.position_embeddings
        if tuple(tokens.shape[2:]) != self._grid:
            field = positions.transpose(1, 2).reshape(1, -1, *self._grid)
            field = nn.functional.interpolate(field, tokens.shape[2:], mode="trilinear", align_corners=False)
            positions = field.flatten(2).transpose(1, 2)
        out: torch.Tensor = embedding.dropout(tokens.flatten(2).transpose(1, 2) + positions)
        return out


def SwinUnetr(input_channels: int, num_classes: int, deep_supervision: bool = False, **arguments: Any) -> nn.Module:
    """Build MONAI's SwinUNETR, which takes patches of any multiple of 32."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    _refuse(deep_supervision, "SwinUNETR")
    network: nn.Module = SwinUNETR(in_channels=input_channels, out_channels=num_classes, **arguments)
    return network
