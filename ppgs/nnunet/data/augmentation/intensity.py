"""Intensity transforms of batchgeneratorsv2, for all selected samples and channels of a batch together.

A transform is called with the images (b, c, z, y, x), changed in place, and its uniform numbers (b, columns). If
another device augments, the loader's worker turns the numbers into `parameters`, and `change` applies them there in
few operations, without host synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _compute_kernel_size
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from numpy.typing import NDArray
from torch import Tensor

from ppgs import upstream
from ppgs.errors import Untranslatable
from ppgs.nnunet.data.augmentation.packed import Arrays
from ppgs.nnunet.data.augmentation.scalars import DRAWS, Floats, require, rows_of, scalar

_EPSILON = 1e-7
# Values that one product of a blur may make at a time.
_PRODUCT = 2**26


class Intensity:
    """Base class: applied to a sample with probability `p`, then to each of its channels with the transform's own."""

    # Uniform numbers a channel beyond the one that decides whether it is changed.
    per_channel = DRAWS

    def __init__(self, transform: Any, p: float, channels: int) -> None:
        self._p, self._p_channel, self._channels = p, float(transform.p_per_channel), channels
        self.columns = 1 + channels * (1 + self.per_channel)

    def __call__(self, image: Tensor, u: Floats) -> None:
        space = image.shape[2:]
        rows, drawn = self._drawn(u)
        if len(rows):
            flat, chosen = image.flatten(0, 1), rows_of(rows, image.device)
            flat[chosen] = self.apply(flat[chosen], *map(torch.from_numpy, self.values(drawn, space)))

    def parameters(self, u: Floats, space: Sequence[int]) -> Arrays:
        """Return the arguments of `change` for images of this size: the channels' rows and their values."""
        rows, drawn = self._drawn(u)
        return [rows, *self.values(drawn, space)] if len(rows) else []

    def change(self, image: Tensor, rows: Tensor, *values: Tensor) -> None:
        """Transform these rows of the image's channels in place."""
        flat = image.flatten(0, 1)
        flat.index_copy_(0, rows, self.apply(flat.index_select(0, rows), *values))

    def _drawn(self, u: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Return the rows of the channels that are changed, and their uniform numbers (n, per_channel)."""
        drawn = u[:, 1:].reshape(len(u), self._channels, 1 + self.per_channel)
        chosen = np.flatnonzero(((u[:, 0] < self._p)[:, None] & (drawn[..., 0] < self._p_channel)).ravel())
        return chosen, drawn.reshape(-1, 1 + self.per_channel)[chosen, 1:]

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        """Return the values for `apply` from the channels' uniform numbers, shaped for broadcasting."""
        raise NotImplementedError

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        """Transform channels x (n, z, y, x) given their values; may change x in place."""
        raise NotImplementedError


def _column(values: NDArray[Any], space: Sequence[int]) -> NDArray[np.float32]:
    """Reshape one value per channel for broadcasting over images of this size."""
    return values.astype(np.float32).reshape(-1, *(1,) * len(space))


def _mean(x: Tensor) -> Tensor:
    """Return the mean of every channel, summed in an order that does not depend on the number of threads."""
    for axis in reversed(range(1, x.dim())):
        x = x.mean(axis, keepdim=True)
    return x


def _deviation(centred: Tensor) -> Tensor:
    """Return the standard deviation of zero-mean channels as `Tensor.std` does, many times faster on the CPU."""
    count = centred[0].numel()
    return (_mean(centred.square()) * (count / max(count - 1, 1))).sqrt()


def _range(x: Tensor) -> tuple[Tensor, Tensor]:
    space = tuple(range(1, x.dim()))
    return x.amin(space, keepdim=True), x.amax(space, keepdim=True)


class Noise(Intensity):
    """`GaussianNoiseTransform`, one deviation a sample.

    On the CPU each channel has a generator; on other devices its noise is a hash of seed and voxel.
    """

    per_channel = 1

    def __init__(self, transform: GaussianNoiseTransform, p: float, channels: int) -> None:
        require(transform, synchronize_channels=True)
        super().__init__(transform, p, channels)
        self._deviation = scalar(transform.noise_variance)
        self.columns += DRAWS

    def __call__(self, image: Tensor, u: Floats) -> None:
        flat = image.flatten(0, 1)
        for row, seed, deviation in zip(*self._noises(u), strict=True):
            generator = torch.Generator(image.device)
            generator.manual_seed(int(seed))
            noise = torch.empty_like(flat[row]).normal_(generator=generator)
            flat[row].add_(noise, alpha=float(deviation))

    def parameters(self, u: Floats, _: Sequence[int]) -> Arrays:
        rows, seeds, deviations = self._noises(u)
        return [rows, seeds[:, None], deviations.astype(np.float32)[:, None]] if len(rows) else []

    def change(self, image: Tensor, rows: Tensor, *values: Tensor) -> None:
        flat = image.flatten(0, 1).flatten(1)
        seeds, deviations = values
        flat.index_add_(0, rows, _noise(seeds, deviations, flat.shape[1]))

    def _noises(self, u: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return rows, seeds and deviations of the channels with noise."""
        deviations = np.repeat(self._deviation(u[:, -DRAWS:]), self._channels)
        rows, drawn = self._drawn(u[:, :-DRAWS])
        return rows, (drawn[:, 0] * 2**53).astype(np.int64), deviations[rows]


def _noise(seeds: Tensor, deviations: Tensor, count: int) -> Tensor:
    """Return normal numbers (n, count) from seeds (n, 1): SplitMix64's upper bits are taken as quantiles."""
    state = torch.arange(1, count + 1, device=seeds.device).mul_(_signed(0x9E3779B97F4A7C15)) + seeds
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        # Shifts of signed integers copy the sign bit, which is masked.
        shifted = (state >> shift).bitwise_and_((1 << (64 - shift)) - 1)
        state = state.bitwise_xor_(shifted).mul_(_signed(factor))
    upper = (state >> 40).float()
    return upper.add_(0.5).mul_(2.0**-23).erfinv_().mul_(deviations * 2**0.5)


def _signed(bits: int) -> int:
    return bits - (1 << 64)


class Blur(Intensity):
    """`GaussianBlurTransform`: a deviation for every channel and axis."""

    def __init__(self, transform: GaussianBlurTransform, p: float, channels: int, axes: int) -> None:
        require(transform, synchronize_channels=False, synchronize_axes=False)
        self.per_channel = DRAWS * axes
        super().__init__(transform, p, channels)
        self._axes = axes
        self._sigma = scalar(transform.blur_sigma)

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        # The width follows from the channel with the largest radius.
        return self._filters(u, space, lambda _, radii: int(radii.max()))

    def parameters(self, u: Floats, space: Sequence[int]) -> Arrays:
        rows, drawn = self._drawn(u)
        # The width is that of the largest possible radius, so that rounding does not depend on the other channels.
        most = self._sigma(np.ones((1, DRAWS)))
        return [rows, *self._filters(drawn, space, lambda size, _: int(_radii(most, size)[0]))] if len(rows) else []

    def _filters(self, u: Floats, space: Sequence[int], widest: Callable[[int, NDArray[np.int64]], int]) -> Arrays:
        """Return, for every axis, the kernels (n, k, 1, ...) and the indices (size + k - 1) of the padded voxels."""
        sigmas = self._sigma(u.reshape(len(u), self._axes, DRAWS))
        found: Arrays = []
        for axis, size in enumerate(space):
            radii = _radii(sigmas[:, axis], size)
            kernels, reflected = _filter(sigmas[:, axis], radii, size, widest(size, radii))
            found += [kernels.reshape(*kernels.shape, *(1,) * len(space)), reflected]
        return found

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        for axis, (kernels, reflected) in enumerate(zip(values[::2], values[1::2], strict=True), start=1):
            if kernels.shape[1] == 1:
                continue
            padded = x.index_select(axis, reflected)
            result = torch.zeros_like(x)
            for k, weights in enumerate(kernels.unbind(1)):
                result.addcmul_(padded.narrow(axis, k, x.shape[axis]), weights)
            x = result
        return x

    def change(self, image: Tensor, rows: Tensor, *values: Tensor) -> None:
        flat = image.flatten(0, 1)
        widest = max(kernels.shape[1] for kernels in values[::2])
        some = max(1, _PRODUCT // (widest * flat[0].numel()))
        for first in range(0, len(rows), some):
            part = slice(first, first + some)
            x = flat.index_select(0, rows[part])
            for kernels, reflected in zip(values[::2], values[1::2], strict=True):
                # Each pass moves the first axis to the end, so the last pass restores the order of the axes.
                windows = x.index_select(1, reflected).unfold(1, x.shape[1], 1)
                x = (windows * kernels[part]).sum(1)
            flat.index_copy_(0, rows[part], x)


def _radii(sigmas: Floats, size: int) -> NDArray[np.int64]:
    """Return the radii of the kernels; reflection cannot reach beyond the patch."""
    radii = [_compute_kernel_size(s, truncate=upstream.BLUR_TRUNCATE) // 2 for s in sigmas]
    found: NDArray[np.int64] = np.minimum(radii, size - 1)
    return found


def _filter(
    sigmas: Floats, radii: NDArray[np.int64], size: int, widest: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return Gaussian kernels (`blur_dimension`) and the indices of voxels padded by reflection."""
    offsets = np.arange(-widest, widest + 1)
    kernels = np.exp(-0.5 * (offsets[None] / sigmas[:, None]) ** 2) * (np.abs(offsets)[None] <= radii[:, None])
    kernels /= kernels.sum(axis=1, keepdims=True)
    reflected = np.abs(np.arange(-widest, size + widest))
    reflected = np.where(reflected > size - 1, 2 * (size - 1) - reflected, reflected)
    return kernels.astype(np.float32), reflected


class Brightness(Intensity):
    """`MultiplicativeBrightnessTransform`."""

    def __init__(self, transform: MultiplicativeBrightnessTransform, p: float, channels: int) -> None:
        require(transform, synchronize_channels=False)
        super().__init__(transform, p, channels)
        self._factor = scalar(transform.multiplier_range)

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        return [_column(self._factor(u), space)]

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        return x.mul_(*values)


class Contrast(Intensity):
    """`ContrastTransform`, the range of intensities preserved."""

    def __init__(self, transform: ContrastTransform, p: float, channels: int) -> None:
        require(transform, synchronize_channels=False, preserve_range=True)
        super().__init__(transform, p, channels)
        self._factor = scalar(transform.contrast_range)

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        return [_column(self._factor(u), space)]

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        mean, (low, high) = _mean(x), _range(x)
        x.sub_(mean).mul_(*values).add_(mean)
        return torch.minimum(torch.maximum(x, low), high)


class LowResolution(Intensity):
    """`SimulateLowResolutionTransform`: down by the nearest voxel, up by linear interpolation, axis by axis."""

    def __init__(self, transform: SimulateLowResolutionTransform, p: float, channels: int, axes: int) -> None:
        require(transform, synchronize_channels=False, synchronize_axes=True, allowed_channels=None)
        super().__init__(transform, p, channels)
        ignored = set(transform.ignore_axes or ())
        self._along = [axis for axis in range(axes) if axis not in ignored]
        self._scale = scalar(transform.scale)

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        scales, found = self._scale(u).astype(np.float32), Arrays()
        for axis in self._along:
            shape = [1] * (1 + len(space))
            shape[0], shape[1 + axis] = len(u), space[axis]
            found += [part.reshape(shape) for part in _coarsened(space[axis], scales)]
        return found

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        for n, axis in enumerate(self._along):
            below, above, share = (value.expand(x.shape) for value in values[3 * n : 3 * n + 3])
            x = torch.lerp(x.gather(axis + 1, below), x.gather(axis + 1, above), share)
        return x


def _coarsened(
    size: int, scales: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return, for channels and voxels (n, size), the two source voxels and the weight of the second."""
    small = np.maximum([round(size * float(s)) for s in scales], 1)[:, None]
    source = np.maximum((np.arange(size)[None] + 0.5) * small / size - 0.5, 0.0)
    below = np.floor(source).astype(np.int64)

    def nearest(coarse: NDArray[np.int64]) -> NDArray[np.int64]:
        fine: NDArray[np.int64] = np.floor((np.minimum(coarse, small - 1) + 0.5) * size / small).astype(np.int64)
        return fine

    return nearest(below), nearest(below + 1), (source - below).astype(np.float32)


class Gamma(Intensity):
    """`GammaTransform`, mean and deviation retained."""

    def __init__(self, transform: GammaTransform, p: float, channels: int) -> None:
        require(transform, synchronize_channels=False, p_retain_stats=1.0)
        if transform.p_invert_image not in (0.0, 1.0):
            raise Untranslatable.of(f"GammaTransform with p_invert_image={transform.p_invert_image}")
        super().__init__(transform, p, channels)
        self._sign = -1.0 if transform.p_invert_image else 1.0
        self._gamma = scalar(transform.gamma)

    def values(self, u: Floats, space: Sequence[int]) -> Arrays:
        return [_column(self._gamma(u), space)]

    def apply(self, x: Tensor, *values: Tensor) -> Tensor:
        low, high = _range(x)
        extent = high - low
        mean = _mean(x)
        std = _deviation(x - mean)
        # The smallest value of the inverted image is the negative of the largest.
        start = low if self._sign > 0 else high
        x.sub_(start).mul_(self._sign / extent.clamp(min=_EPSILON))
        # A power, but for pow_, which rounds otherwise at the ends of what a thread is given.
        x.log_().mul_(*values).exp_()
        mean_now = _mean(x)
        std_now = _deviation(x - mean_now) * extent
        scale = extent * std / std_now.clamp(min=_EPSILON) * self._sign
        return x.sub_(mean_now).mul_(scale).add_(mean)
