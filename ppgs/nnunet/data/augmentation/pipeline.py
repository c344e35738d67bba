"""nnU-Net's training pipeline, translated once, applied to whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from numpy.typing import NDArray
from torch import Tensor

from ppgs.errors import Untranslatable
from ppgs.nnunet.data.augmentation.intensity import Blur, Brightness, Contrast, Gamma, Intensity, LowResolution, Noise
from ppgs.nnunet.data.augmentation.packed import Packed
from ppgs.nnunet.data.augmentation.scalars import Floats, rows_of
from ppgs.nnunet.data.augmentation.spatial import Mirror, Spatial


@dataclass
class Moved:
    """Crops of the samples that are rotated or scaled: all of one size, larger or smaller than the patch.

    `rows` (n) are their places in the batch. `image` (n, c, z, y, x) and `labels` (n, 1, z, y, x), which hold the
    labels `values`, become theirs by `matrices` (n, d, d) and `offsets` (n, d): where the patches' centres lie, in
    voxels from the crops'.
    """

    rows: NDArray[np.int64]
    image: Tensor
    labels: Tensor
    values: tuple[int, ...]
    matrices: Floats
    offsets: Floats


@dataclass
class Crops:
    """Crops of cases for a batch, before augmentation.

    `image` (b, c, z, y, x) float32 and `labels` (b, 1, z, y, x) int16 have the patch's size, the rows of samples that
    are `moved` not filled in. `uniforms` (b, columns) decide all the rest.
    """

    image: Tensor
    labels: Tensor
    moved: list[Moved]
    uniforms: Floats


@dataclass
class Prepared:
    """Crops for another device, with the parameters of all their transforms."""

    image: Tensor
    labels: Tensor
    moved: list[Tensor]
    moved_labels: list[Tensor]
    parameters: Packed

    def to(self, device: torch.device) -> Prepared:
        """Return the same on a device; copies from pinned memory are asynchronous."""
        return self._with(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> Prepared:
        """Return the same in pinned memory; called by `DataLoader(pin_memory=True)`."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        return Prepared(
            image=change(self.image),
            labels=change(self.labels),
            moved=[change(part) for part in self.moved],
            moved_labels=[change(part) for part in self.moved_labels],
            parameters=replace(self.parameters, buffer=change(self.parameters.buffer)),
        )


# Labels to what the loss takes: a tensor, or a list of them for deep supervision.
Target = Tensor | list[Tensor]


class BatchAugmentation:
    """A whole pipeline for one patch size."""

    def __init__(
        self,
        patch_size: Sequence[int],
        spatial: Spatial | None,
        random: Sequence[Intensity | Mirror],
        masked_channels: Sequence[int],
        finish: Callable[[Tensor], Target],
    ) -> None:
        self._patch_size = tuple(patch_size)
        self._spatial, self._random = spatial, random
        self._masked_channels, self._finish = masked_channels, finish
        # Uniform numbers per sample.
        self._first = spatial.columns if spatial is not None else 0
        self.columns = self._first + sum(r.columns for r in random)

    def movement(self, uniforms: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Choose the samples that are rotated or scaled, and their matrices (see `Moved`)."""
        if self._spatial is None:
            return np.empty(0, np.int64), np.empty((0, len(self._patch_size), len(self._patch_size)))
        return self._spatial.draw(uniforms[:, : self._first])

    def __call__(self, crops: Crops) -> tuple[Tensor, Target]:
        """Return data (b, c, z, y, x) float32 and target as nnU-Net's transforms make them; consumes the crops."""
        image, labels = crops.image, crops.labels
        for part in crops.moved:
            assert self._spatial is not None
            moved, moved_labels = self._spatial.resample(
                part.image, part.labels, part.values, part.matrices, part.offsets, self._patch_size
            )
            rows = rows_of(part.rows, image.device)
            image[rows], labels[rows] = moved, moved_labels
        at = self._first
        for transform in self._random:
            u = crops.uniforms[:, at : at + transform.columns]
            at += transform.columns
            if isinstance(transform, Mirror):
                transform(image, labels, u)
            else:
                transform(image, u)
        return self._ended(image, labels)

    def prepared(self, crops: Crops) -> Prepared:
        """Draw all parameters of the crops, for `on` to augment them on a device."""
        parameters = []
        for part in crops.moved:
            assert self._spatial is not None
            crop = part.image.shape[2:]
            parameters.append(self._spatial.parameters(part.rows, part.values, part.matrices, part.offsets, crop))
        at = self._first
        for transform in self._random:
            u = crops.uniforms[:, at : at + transform.columns]
            at += transform.columns
            if isinstance(transform, Mirror):
                parameters.append(transform.parameters(u))
            else:
                parameters.append(transform.parameters(u, self._patch_size))
        moved, moved_labels = [part.image for part in crops.moved], [part.labels for part in crops.moved]
        return Prepared(crops.image, crops.labels, moved, moved_labels, Packed.of(parameters))

    def on(self, device: torch.device, prepared: Prepared) -> tuple[Tensor, Target]:
        """Return data and target as `__call__` does, without host synchronisation."""
        there = prepared.to(device)
        image, labels, parameters = there.image, there.labels, iter(there.parameters.unpacked())
        for moved, moved_labels in zip(there.moved, there.moved_labels, strict=True):
            assert self._spatial is not None
            self._spatial.change(image, labels, moved, moved_labels, *next(parameters))
        for transform, drawn in zip(self._random, parameters, strict=True):
            if isinstance(transform, Mirror):
                transform.change(image, labels, *drawn)
            elif drawn:
                transform.change(image, *drawn)
        return self._ended(image, labels)

    def _ended(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Target]:
        for channel in self._masked_channels:
            image[:, channel].masked_fill_(labels[:, 0] < 0, 0.0)
        return image, self._finish(labels)


def translate(pipeline: BasicTransform, patch_size: Sequence[int], channels: int) -> BatchAugmentation:
    """Translate a result of `nnUNetTrainer.get_training_transforms` or `get_validation_transforms` to whole batches.

    `patch_size` in voxels is the one it was built for, `channels` those of the image.

    Raises `Untranslatable` for a transform or a setting that has none, as a cascade's are.
    """
    axes = len(patch_size)
    in_plane = False
    moves: SpatialTransform | None = None
    random: list[Intensity | Mirror] = []
    masked: list[int] = []
    removed: list[tuple[int, int]] = []
    finishing: list[Callable[[Target], Target]] = []
    if not isinstance(pipeline, ComposeTransforms):
        raise Untranslatable.of(f"a pipeline that is a {type(pipeline).__name__}")
    for transform in pipeline.transforms:
        match transform:
            case Convert3DTo2DTransform():
                in_plane = True
            case Convert2DTo3DTransform():
                pass
            case SpatialTransform():
                moves = transform
            case RandomTransform():
                random.append(_intensity(transform.transform, transform.apply_probability, channels, axes))
            case MirrorTransform():
                random.append(Mirror(transform))
            case MaskImageTransform(channel_idx_in_seg=0, set_outside_to=0):
                masked = list(transform.apply_to_channels)
            case RemoveLabelTransform(segmentation_channels=None):
                removed.append((transform.label_value, transform.set_to))
            case ConvertSegmentationToRegionsTransform(channel_in_seg=0):
                finishing.append(_Regions(transform.regions))
            case DownsampleSegForDSTransform():
                finishing.append(_Outputs(transform.ds_scales))
            case _:
                raise Untranslatable.of(type(transform).__name__)

    spatial = None
    if moves is not None:
        # Only a mask depends on the padding before it is removed.
        background = not masked and dict(removed).get(int(moves.padding_value_seg)) == 0
        spatial = Spatial(moves, in_plane=in_plane, padding_is_background=background)

    def finish(labels: Tensor) -> Target:
        if removed == [(-1, 0)]:  # nnU-Net's own; no label is lower
            labels.clamp_(min=0)
        else:
            for value, replacement in removed:
                labels.masked_fill_(labels == value, replacement)
        target: Target = labels
        for step in finishing:
            target = step(target)
        return target

    return BatchAugmentation(patch_size, spatial, random, masked, finish)


def _intensity(transform: Any, p: float, channels: int, axes: int) -> Intensity:
    match transform:
        case GaussianNoiseTransform():
            return Noise(transform, p, channels)
        case GaussianBlurTransform():
            return Blur(transform, p, channels, axes)
        case MultiplicativeBrightnessTransform():
            return Brightness(transform, p, channels)
        case ContrastTransform():
            return Contrast(transform, p, channels)
        case SimulateLowResolutionTransform():
            return LowResolution(transform, p, channels, axes)
        case GammaTransform():
            return Gamma(transform, p, channels)
    raise Untranslatable.of(type(transform).__name__)


class _Regions:
    """`ConvertSegmentationToRegionsTransform`: labels (b, 1, ...) to membership (b, regions, ...) bool."""

    def __init__(self, regions: Sequence[Tensor]) -> None:
        self._regions = [r.flatten().tolist() for r in regions]

    def __call__(self, target: Target) -> Target:
        assert isinstance(target, Tensor)
        return torch.cat([self._members(target, region) for region in self._regions], dim=1)

    @staticmethod
    def _members(target: Tensor, region: Sequence[int]) -> Tensor:
        found = target == region[0]
        for label in region[1:]:
            found.logical_or_(target == label)
        return found


class _Outputs:
    """`DownsampleSegForDSTransform`: one target for every output of deep supervision, by the nearest voxel."""

    def __init__(self, scales: Sequence[Sequence[float]]) -> None:
        self._scales = scales

    def __call__(self, target: Target) -> Target:
        assert isinstance(target, Tensor)
        return [self._nearest(target, scale) for scale in self._scales]

    @staticmethod
    def _nearest(target: Tensor, scale: Sequence[float]) -> Tensor:
        output = target
        for axis, (size, share) in enumerate(zip(target.shape[2:], scale, strict=True), start=2):
            small = round(size * share)
            if small == size:
                continue
            step, rest = divmod(size, small)
            if rest:
                places = torch.arange(small, dtype=torch.float64, device=target.device)
                output = output.index_select(axis, places.add_(0.5).mul_(size).div_(small).floor_().long())
            else:
                output = output[(slice(None),) * axis + (slice(step // 2, None, step),)]
        return output.contiguous()
