"""Rotation and scaling of many samples together (batchgeneratorsv2's `SpatialTransform`) and mirroring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.nn.functional import pad as constant_pad

from ppgs.nnunet.data.augmentation.packed import Arrays
from ppgs.nnunet.data.augmentation.scalars import DRAWS, Floats, require, rows_of, scalar

# SpatialTransform scores labels in half precision at this scale, which makes near ties ties.
_SCORE = 1000.0
# Voxels of padding before a crop.
_BEFORE = 2
# Batches up to this many voxels are checked for a label in one operation.
_INDICATORS = 2**20
# Indicator values up to which labels are scored together on a device.
_SCORED = 2**25


class Spatial:
    """`SpatialTransform` as nnU-Net uses it: affine, about the crop's centre, no elastic deformation.

    In `in_plane` (nnU-Net's dummy 2D) the first axis of a volume stays as it is and all its slices move the same way.
    With `padding_is_background` the padding's label is not distinguished from 0.
    """

    def __init__(self, transform: SpatialTransform, *, in_plane: bool, padding_is_background: bool = False) -> None:
        require(
            transform,
            p_elastic_deform=0,
            random_crop=False,
            p_rot_per_axis=1,
            mode_seg="bilinear",
            mode_image="bilinear",
            border_mode_seg="constant",
            padding_mode_image="zeros",
            align_corners=False,
            seg_tiebreak="nearest",
        )
        self._in_plane = in_plane
        self._axes = len(transform.patch_size)
        self._p_rotation, self._p_scaling = transform.p_rotation, transform.p_scaling
        self._p_same_scale = transform.p_synchronize_scaling_across_axes
        self._rotation, self._scaling = scalar(transform.rotation), scalar(transform.scaling)
        self._padding_label = int(transform.padding_value_seg)
        self._padding_is_background = padding_is_background
        self.columns = 3 + 2 * DRAWS * self._axes

    def draw(self, u: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Choose the moved samples, and the matrices (n, d, d) from patch voxels to crop voxels."""
        n, d = len(u), self._axes
        rotate, scale = u[:, 0] < self._p_rotation, u[:, 1] < self._p_scaling
        values = u[:, 3:].reshape(n, 2, d, DRAWS)
        angles = np.where(rotate[:, None], self._rotation(values[:, 0]), 0.0)
        scales = self._scaling(values[:, 1])
        scales = np.where((u[:, 2] <= self._p_same_scale)[:, None], scales[:, :1], scales)
        scales = np.where(scale[:, None], scales, 1.0)
        moved = np.flatnonzero(rotate | scale)
        return moved, _rotations(angles[moved]) * scales[moved][:, None, :]

    def resample(
        self,
        image: Tensor,
        labels: Tensor,
        values: Sequence[int],
        matrices: Floats,
        offsets: Floats,
        patch_size: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Resample crops `image` (n, c, z, y, x) and `labels` (n, s, z, y, x) with `values` to patches by `matrices`.

        `offsets` (n, d) are where the patches' centres lie, in voxels from the crops' centres.
        """
        theta = map(torch.from_numpy, self.affine(matrices, offsets, image.shape[2:]))
        shift, *steps = (part.to(image.device) for part in theta)

        def sampled(image: Tensor, labels: Tensor, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
            grid = _grid(shift, steps, patch)
            return _sample(image, grid), self._labels(labels, values, grid)

        return self._folded(image, labels, patch_size, sampled)

    def affine(self, matrices: Floats, offsets: Floats, crop: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the centres of the patches in crops and the step along each patch axis, for `_grid`."""
        if self._in_plane:
            offsets, crop = offsets[:, 1:], crop[1:]
        n, d = offsets.shape
        scale = 2.0 / np.array(crop, dtype=np.float64)
        shift = (offsets * scale)[:, ::-1].astype(np.float32)
        theta = (matrices * scale[None, :, None])[:, ::-1].astype(np.float32)
        return [part.reshape(n, d, *(1,) * d) for part in (shift, *(theta[:, :, axis] for axis in range(d)))]

    def parameters(
        self, rows: NDArray[np.int64], values: Sequence[int], matrices: Floats, offsets: Floats, crop: Sequence[int]
    ) -> Arrays:
        """Return the arguments of `change` for samples that become the batch's `rows`."""
        known = np.array([self._padding_label, *sorted({*values} - {self._padding_label})], np.int64)
        return [rows, known, *self.affine(matrices, offsets, crop)]

    def change(
        self,
        image: Tensor,
        labels: Tensor,
        moved: Tensor,
        moved_labels: Tensor,
        rows: Tensor,
        known: Tensor,
        shift: Tensor,
        *steps: Tensor,
    ) -> None:
        """Resample the crops `moved` into rows of a batch, without host synchronisation."""

        def sampled(crops: Tensor, crop_labels: Tensor, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
            grid = _grid(shift, steps, patch)
            return _sample(crops, grid), self._scored(crop_labels, known, grid)

        found, found_labels = self._folded(moved, moved_labels, image.shape[2:], sampled)
        image.index_copy_(0, rows, found)
        labels.index_copy_(0, rows, found_labels)

    def _folded(
        self, image: Tensor, labels: Tensor, patch: Sequence[int], sampled: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Call `sampled(image, labels, patch)`, in plane with slices as channels (`Convert3DTo2DTransform`)."""
        if not self._in_plane:
            return sampled(image, labels, patch)
        folded = sampled(image.flatten(1, 2), labels.flatten(1, 2), patch[1:])
        shapes = [(len(image), whole.shape[1], *patch) for whole in (image, labels)]
        return folded[0].reshape(shapes[0]), folded[1].reshape(shapes[1])

    def _scored(self, labels: Tensor, known: Tensor, grid: Tensor) -> Tensor:
        """Return the labels of `_labels` by interpolating every point, whose choice would need synchronisation."""
        n, s, *crop = labels.shape
        patch = grid.shape[2:]
        # Samples beyond the borders are 0, so labels are counted from the padding's.
        counted = labels.sub(self._padding_label).float()
        nearest = _sample(counted, grid, mode="nearest").add_(self._padding_label).to(labels.dtype)
        best: Tensor | None = None
        for first, some in enumerate(torch.split(known, max(1, _SCORED // labels.numel()))):
            column = some.view(-1, *(1,) * len(crop))
            found = labels.unsqueeze(2).eq(column)
            if not first:
                # The padding's score is 1 minus that of all other labels, also beyond the borders.
                found[:, :, 0].logical_not_()
            score = _sample(found.flatten(1, 2).float(), grid).view(n, s, len(some), *patch)
            if not first:
                score[:, :, 0].neg_().add_(1)
            score = score.mul_(_SCORE).half()
            highest, which = score.max(2)
            at_nearest = score.mul(nearest.unsqueeze(2).eq(column)).amax(2)
            label = some[which]
            if best is None:
                best, chosen, reached = highest, label, at_nearest
            else:
                # Among labels with equal scores the lowest wins, as it does in nnU-Net.
                chosen = torch.where(highest > best, label, chosen)
                best, reached = torch.maximum(best, highest), torch.maximum(reached, at_nearest)
        assert best is not None
        return torch.where(reached == best, nearest, chosen.to(labels.dtype))

    def _labels(self, labels: Tensor, values: Sequence[int], grid: Tensor) -> Tensor:
        """Return the label with the highest interpolated score; the nearest one's if it shares the highest score.

        Only points between voxels of several distinguished labels are interpolated.
        """
        axes, many = grid.shape[1], labels.shape[1]
        # Beyond the borders there is only padding: room for a cell of it, and for one that overlaps it.
        bordered = constant_pad(labels, (_BEFORE, 1) * axes, value=self._padding_label)
        mixed = _mixed(bordered.clamp(min=0) if self._padding_is_background else bordered)
        # One value to look up: the label, and in the last bit whether its cell has others.
        marked = bordered.mul(2).add_(mixed).flatten(2)
        crop, strides = labels.shape[2:], bordered.stride()[2:]
        found = marked.gather(2, _cells(grid, crop, strides)[:, None].expand(-1, many, -1))
        result = found >> 1
        chosen = _places(found[:, 0] & 1)
        if chosen.shape[1]:
            points = grid.flatten(2).gather(2, chosen[:, None].expand(-1, axes, -1))
            nearest = marked.gather(2, _cells(points, crop, strides, 0.5)[:, None].expand(-1, many, -1)) >> 1
            decided = self._decided(labels, values, points[(..., *(None,) * (axes - 1))], nearest)
            result.scatter_(2, chosen[:, None].expand(-1, many, -1), decided)
        return result.view(*labels.shape[:2], *grid.shape[2:])

    def _decided(self, labels: Tensor, values: Sequence[int], points: Tensor, nearest: Tensor) -> Tensor:
        """Return the labels at `points` (n, d, m, 1, 1) if the nearest ones are `nearest` (n, s, m)."""
        known = torch.tensor([self._padding_label, *sorted({*values} - {self._padding_label})]).to(labels)
        scores = []
        for some in torch.split(known[1:], max(1, _INDICATORS // labels.numel())):
            indicators = labels.unsqueeze(2).eq(some.view(-1, *(1,) * (labels.dim() - 2))).flatten(1, 2).float()
            scores.append(_sample(indicators, points).view(*labels.shape[:2], len(some), -1))
        score = torch.cat(scores, dim=2)
        # The padding, the lowest label of all, has what the others leave, also where that is beyond the borders.
        score = torch.cat([1 - score.sum(2, keepdim=True), score], dim=2).mul_(_SCORE).half().float()
        # Among labels with equal scores the lowest wins, as it does in nnU-Net.
        highest, which = score.max(2)
        at_nearest = score.gather(2, torch.searchsorted(known, nearest).unsqueeze(2)).squeeze(2)
        return torch.where(at_nearest == highest, nearest, known[which])


def _grid(shift: Tensor, steps: Sequence[Tensor], patch: Sequence[int]) -> Tensor:
    """Return the position of every voxel of the patches in the crops, (n, d, z, y, x) in grid_sample's coordinates.

    That is -1 and 1 at the crop's borders (`align_corners=False`) and from the last axis to the first.
    """
    grid = shift
    for axis, (size, step) in enumerate(zip(patch, steps, strict=True), start=2):
        shape = [1] * shift.dim()
        shape[axis] = size
        places = torch.arange(size, dtype=torch.float32, device=shift.device).sub_((size - 1) / 2).view(shape)
        grid = grid + step * places
    return grid


def _sample(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Apply `grid_sample` to `image` (n, c, z, y, x) at `grid` (n, d, z, y, x), with 0 beyond the borders."""
    points = grid.movedim(1, -1)
    # On the CPU it shares out samples among threads, not their points.
    alone = len(points) == 1 and image.device.type == "cpu"
    parts = math.gcd(torch.get_num_threads(), points.shape[1]) if alone else 1
    if parts > 1:
        points = points.view(parts, -1, *points.shape[2:])
        image = image.expand(parts, *image.shape[1:])
    found = grid_sample(image, points, mode=mode, padding_mode="zeros", align_corners=False)
    return found.transpose(0, 1).flatten(1, 2)[None] if parts > 1 else found


def _cells(points: Tensor, crop: Sequence[int], strides: Sequence[int], shift: float = 0.0) -> Tensor:
    """Return memory offsets (n, m) of the first voxels of the cells of `points` (n, d, ...), in bordered crops.

    A `shift` of 0.5 gives the voxels nearest to the points.
    """
    index: Tensor | None = None
    for axis, (size, stride) in enumerate(zip(crop, strides, strict=True)):
        place = points[:, -1 - axis].flatten(1).mul(size / 2).add_((size - 1) / 2 + _BEFORE + shift)
        voxel = place.clamp_(0, size + _BEFORE).int()
        index = voxel.mul_(stride) if index is None else index.add_(voxel, alpha=stride)
    assert index is not None
    return index.long()


def _mixed(labels: Tensor) -> Tensor:
    """Return voxels (n, 1, z, y, x) of bordered `labels` (n, s, z, y, x) whose 2 x 2 x 2 cell has several labels."""
    low = high = labels.flatten()
    strides = labels.stride()[2:]
    for stride in strides:
        # Distances in memory of neighbours, and of the last voxel of a row from the next row's first: padding both.
        low = torch.minimum(low[:-stride], low[stride:])
        high = torch.maximum(high[:-stride], high[stride:])
    mixed = constant_pad(low != high, (0, sum(strides))).view_as(labels)
    return mixed if labels.shape[1] == 1 else mixed.any(1, keepdim=True)


def _places(chosen: Tensor) -> Tensor:
    """Return the positions (n, m) of each row's non-zero values; rows with fewer are padded with position 0.

    The usual numbers of threads divide m.
    """
    rows, places = chosen.nonzero(as_tuple=True)
    if len(chosen) == 1:
        return constant_pad(places, (0, -len(places) % 16))[None]
    counts = torch.bincount(rows, minlength=len(chosen))
    most = int(counts.max())
    filled = places.new_zeros(len(chosen), most + -most % 16)
    first = counts.cumsum(0) - counts
    filled[rows, torch.arange(len(rows), device=rows.device) - first[rows]] = places
    return filled


def _rotations(angles: Floats) -> Floats:
    """Return rotation matrices (n, d, d) of angles (n, d): `create_affine_matrix_3d` and `_2d` without scaling."""
    cos, sin = np.cos(angles), np.sin(angles)
    n, d = angles.shape
    eye = np.tile(np.eye(d), (n, 1, 1))
    if d == 2:
        eye[:, 0, 0] = eye[:, 1, 1] = cos[:, -1]
        eye[:, 0, 1], eye[:, 1, 0] = -sin[:, -1], sin[:, -1]
        return eye
    rx, ry, rz = eye.copy(), eye.copy(), eye.copy()
    for matrix, axis, (i, j) in ((rx, 0, (1, 2)), (ry, 1, (2, 0)), (rz, 2, (0, 1))):
        matrix[:, i, i] = matrix[:, j, j] = cos[:, axis]
        matrix[:, i, j], matrix[:, j, i] = -sin[:, axis], sin[:, axis]
    return rz @ ry @ rx


class Mirror:
    """`MirrorTransform`: every allowed axis is flipped in half of the samples, image and labels together."""

    def __init__(self, transform: MirrorTransform) -> None:
        self._axes = tuple(transform.allowed_axes)
        self.columns = len(self._axes)

    def __call__(self, image: Tensor, labels: Tensor, u: Floats) -> None:
        # At most eight ways to flip, as bits, each of them one copy.
        ways = (u < 0.5) @ (1 << np.arange(len(self._axes)))
        for way in set(ways.tolist()) - {0}:
            chosen = np.flatnonzero(ways == way)
            axes = [axis + 2 for bit, axis in enumerate(self._axes) if way >> bit & 1]
            rows = rows_of(chosen, image.device)
            for tensor in (image, labels):
                tensor[rows] = tensor[rows].flip(axes)

    def parameters(self, u: Floats) -> Arrays:
        """Return the arguments of `change`: the flipped rows of every axis."""
        return [np.flatnonzero(column) for column in (u < 0.5).T]

    def change(self, image: Tensor, labels: Tensor, *rows: Tensor) -> None:
        for axis, flipped in zip(self._axes, rows, strict=True):
            for tensor in (image, labels):
                tensor.index_copy_(0, flipped, tensor.index_select(0, flipped).flip(axis + 2))
