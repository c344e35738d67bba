"""Rotation and scaling of many samples at once (batchgeneratorsv2's `SpatialTransform`) and mirroring."""

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

from ppgs.nnunet.augmentation.scalars import DRAWS, Floats, Untranslatable, rows_of, scalar

# SpatialTransform scores labels in half precision at this scale, which makes near ties ties.
_SCORE = 1000.0
# Of so many voxels in all it is told at once whether they have a label.
_INDICATORS = 2**20


class Spatial:
    """`SpatialTransform` as nnU-Net uses it: affine, about the crop's centre, no elastic deformation.

    In `in_plane` (nnU-Net's dummy 2D) the first axis of a volume stays as it is and all its slices move alike. With
    `padding_is_background` nothing will tell the padding's label from 0.
    """

    def __init__(self, transform: SpatialTransform, *, in_plane: bool, padding_is_background: bool = False) -> None:
        fixed = {
            "p_elastic_deform": 0,
            "random_crop": False,
            "p_rot_per_axis": 1,
            "mode_seg": "bilinear",
            "mode_image": "bilinear",
            "border_mode_seg": "constant",
            "padding_mode_image": "zeros",
            "align_corners": False,
            "seg_tiebreak": "nearest",
        }
        for name, value in fixed.items():
            if getattr(transform, name) != value:
                raise Untranslatable(f"SpatialTransform with {name}={getattr(transform, name)!r}")
        self._in_plane = in_plane
        self._axes = len(transform.patch_size)
        self._p_rotation, self._p_scaling = transform.p_rotation, transform.p_scaling
        self._p_same_scale = transform.p_synchronize_scaling_across_axes
        self._rotation, self._scaling = scalar(transform.rotation), scalar(transform.scaling)
        self._padding_label = int(transform.padding_value_seg)
        self._padding_is_background = padding_is_background
        self.columns = 3 + 2 * DRAWS * self._axes

    def draw(self, u: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Which samples move, and the matrices (n, d, d) that take a voxel of the patch to one of the crop."""
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
        """Patches of crops `image` (n, c, z, y, x) and `labels` (n, s, z, y, x) with `values`, moved by `matrices`.

        `offsets` (n, d) are where the patches' centres lie, in voxels from the crops' centres.
        """
        if self._in_plane:
            # Slices become channels, as Convert3DTo2DTransform does.
            n, depth = len(image), patch_size[0]
            folded = self._resample(
                image.flatten(1, 2), labels.flatten(1, 2), values, matrices, offsets[:, 1:], patch_size[1:]
            )
            return (
                folded[0].reshape(n, image.shape[1], depth, *patch_size[1:]),
                folded[1].reshape(n, labels.shape[1], depth, *patch_size[1:]),
            )
        return self._resample(image, labels, values, matrices, offsets, patch_size)

    def _resample(
        self,
        image: Tensor,
        labels: Tensor,
        values: Sequence[int],
        matrices: Floats,
        offsets: Floats,
        patch: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        grid = _grid(matrices, offsets, patch, image.shape[2:], image.device)
        return _sample(image, grid, "bilinear"), self._labels(labels, values, grid)

    def _labels(self, labels: Tensor, values: Sequence[int], grid: Tensor) -> Tensor:
        """The label with the highest interpolated score; the nearest one's where it shares the highest score.

        Interpolated are only points next to where labels meet that will be told apart: anywhere else the nearest label
        will do.
        """
        pad, axes = self._padding_label, grid.shape[1]
        meeting = _meeting(labels.clamp(min=0), 0) if self._padding_is_background else _meeting(labels, pad)
        # 0 beyond the borders: the padding's label, which meets nothing there.
        found = _sample(((labels - pad) * 2 + meeting).float(), grid, "nearest").to(labels.dtype)
        result = (found >> 1).add_(pad)
        where = _places((found[:, 0] & 1).flatten(1))
        if not where.shape[1]:
            return result
        points = grid.flatten(2).gather(2, where[:, None].expand(-1, axes, -1))
        points = points[(..., *(None,) * (axes - 1))]
        places = where[:, None].expand(-1, labels.shape[1], -1)
        nearest = result.flatten(2).gather(2, places)
        rest = torch.ones(nearest.shape, device=labels.device)
        best = at_nearest = torch.full_like(rest, -math.inf)
        winner = torch.full_like(nearest, pad)
        others = sorted({*values} - {pad})
        many = max(1, _INDICATORS // labels.numel())
        for first in range(0, len(others), many):
            some = torch.tensor(others[first : first + many], dtype=labels.dtype, device=labels.device)
            indicators = labels.unsqueeze(2).eq(some.view(-1, *(1,) * axes)).flatten(1, 2).float()
            scores = _sample(indicators, points, "bilinear").view(*nearest.shape[:2], len(some), -1)
            rest = rest - scores.sum(2)
            scores = _rounded(scores)
            # Of labels that score alike the lowest wins, as it does in `max`.
            highest, which = scores.max(2)
            winner = torch.where(highest > best, some[which], winner)
            best = torch.maximum(best, highest)
            own = nearest.unsqueeze(2).eq(some.view(-1, 1))
            at_nearest = torch.maximum(at_nearest, scores.masked_fill(~own, -math.inf).amax(2))
        # The padding, the lowest label of all, has what the others leave, also where that is beyond the borders.
        rest = _rounded(rest)
        winner = winner.masked_fill(rest >= best, pad)
        best = torch.maximum(best, rest)
        at_nearest = torch.where(nearest == pad, rest, at_nearest)
        decided = torch.where(at_nearest == best, nearest, winner)
        return result.flatten(2).scatter(2, places, decided).view_as(result)


def _rounded(scores: Tensor) -> Tensor:
    return (scores * _SCORE).half().float()


def _grid(matrices: Floats, offsets: Floats, patch: Sequence[int], crop: Sequence[int], device: torch.device) -> Tensor:
    """Where every voxel of the patches lies in the crops: (n, d, z, y, x), its coordinates as grid_sample counts them.

    That is -1 and 1 at the crop's borders (`align_corners=False`) and from the last axis to the first.
    """
    n, d = offsets.shape
    scale = 2.0 / np.array(crop, dtype=np.float64)
    theta = torch.from_numpy((matrices * scale[None, :, None])[:, ::-1].astype(np.float32)).to(device)
    grid = torch.from_numpy((offsets * scale)[:, ::-1].astype(np.float32)).to(device).view(n, d, *(1,) * d)
    for axis, size in enumerate(patch):
        shape = [1] * (d + 2)
        shape[axis + 2] = size
        steps = torch.arange(size, dtype=torch.float32, device=device).sub_((size - 1) / 2).view(shape)
        grid = grid + theta[:, :, axis].view(n, d, *(1,) * d) * steps
    return grid


def _sample(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`grid_sample` of `values` (n, c, z, y, x) at `grid` (n, d, z, y, x), 0 beyond the borders."""
    points = grid.movedim(1, -1)
    # On the CPU it shares out samples among threads, not their points.
    alone = len(points) == 1 and values.device.type == "cpu"
    parts = math.gcd(torch.get_num_threads(), points.shape[1]) if alone else 1
    if parts > 1:
        points = points.view(parts, -1, *points.shape[2:])
        values = values.expand(parts, *values.shape[1:])
    found = grid_sample(values, points, mode=mode, padding_mode="zeros", align_corners=False)
    return found.transpose(0, 1).flatten(1, 2)[None] if parts > 1 else found


def _meeting(labels: Tensor, pad: int) -> Tensor:
    """Voxels (n, 1, z, y, x) of `labels` (n, s, z, y, x), `pad` around them, one of whose neighbours differs."""
    space = range(2, labels.dim())
    low = high = constant_pad(labels, (1, 1) * len(space), value=pad)
    for axis in space:
        low, high = _of_three(torch.minimum, low, axis), _of_three(torch.maximum, high, axis)
    return (low != high).any(1, keepdim=True)


def _of_three(pick: Callable[[Tensor, Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """What `pick` makes of every voxel and its two neighbours along an axis, the first and last voxel left out."""
    before, here, after = (x.narrow(axis, first, x.shape[axis] - 2) for first in range(3))
    return pick(pick(before, here), after)


def _places(chosen: Tensor) -> Tensor:
    """The places (n, m) of each row's values that are not 0, rows with fewer filled up with place 0.

    Of a number m that the usual numbers of threads divide.
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
    """Rotation matrices (n, d, d) of angles (n, d): `create_affine_matrix_3d` and `_2d` without the scaling."""
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
    """`MirrorTransform`: every allowed axis is flipped in half of the samples, image and labels alike."""

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
