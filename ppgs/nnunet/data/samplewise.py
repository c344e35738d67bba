"""nnU-Net's own transforms, made pure functions of the random numbers they draw.

Three of batchgeneratorsv2's transforms remember something from one sample to the next, so that what a sample becomes
would depend on which worker made it. They are replaced by subclasses that override the one method concerned.
"""

from __future__ import annotations

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, blur_dimension
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform


class _Blur(GaussianBlurTransform):
    """Blurs by convolution always: the original times convolution against FFT and keeps the faster, whose rounding
    differs. Its kernel is cut to what reflection at the border allows, for patches of fewer than four voxels."""

    def _benchmark_wrapper(self, img: torch.Tensor, sigma: float, dim_to_blur: int) -> torch.Tensor:
        size = img.shape[dim_to_blur + 1]
        if size == 1:
            return img
        widest = (2 * (size - 1) + 1 - 0.5) / sigma
        blurred: torch.Tensor = blur_dimension(img, sigma, dim_to_blur, force_use_fft=False, truncate=min(6.0, widest))
        return blurred


class _BinaryOperator(ApplyRandomBinaryOperatorTransform):
    """Shuffles its channels from the same order every time: the original shuffles its list in place, on and on."""

    channel_idx: list[int]

    def get_parameters(self, **data_dict: object) -> dict:
        self.channel_idx = sorted(self.channel_idx)
        return dict(super().get_parameters(**data_dict))


class _RemoveComponent(RemoveRandomConnectedComponentFromOneHotEncodingTransform):
    """As `_BinaryOperator`: shuffles from the same order every time."""

    channel_idx: list[int]

    def get_parameters(self, **data_dict: object) -> dict:
        self.channel_idx = sorted(self.channel_idx)
        return dict(super().get_parameters(**data_dict))


_REPLACEMENTS: dict[type, type] = {
    GaussianBlurTransform: _Blur,
    ApplyRandomBinaryOperatorTransform: _BinaryOperator,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform: _RemoveComponent,
}


def without_memory(transform: BasicTransform) -> BasicTransform:
    """Replace every transform that keeps state between calls; changes and returns `transform`."""
    if isinstance(transform, ComposeTransforms):
        for part in transform.transforms:
            without_memory(part)
    elif isinstance(transform, OneOfTransform):
        for part in transform.list_of_transforms:
            without_memory(part)
    elif isinstance(transform, RandomTransform):
        without_memory(transform.transform)
    elif type(transform) in _REPLACEMENTS:
        transform.__class__ = _REPLACEMENTS[type(transform)]
    return transform
