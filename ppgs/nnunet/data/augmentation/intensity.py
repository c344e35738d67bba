"""Intensity transforms of batchgeneratorsv2, for all selected samples and channels of a batch together.

A transform is called with the images (b, c, z, y, x), changed in place, and its uniform numbers (b, columns).
"""

from __future__ import annotations

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
from ppgs.nnunet.data.augmentation.scalars import DRAWS, Floats, rows_of, scalar

_EPSILON = 1e-7


class Intensity:
    """Base class: applied to a sample with probability `p`, then to each of its channels with the transform's own."""

    # Uniform numbers a channel beyond the one that decides whether it is changed.
    per_channel = DRAWS

    def __init__(self, transform: Any, p: float, channels: int) -> None:
        self._p, self._p_channel, self._channels = p, float(transform.p_per_channel), channels
        self.columns = 1 + channels * (1 + self.per_channel)

    def __call__(self, image: Tensor, u: Floats) -> None:
        sampled = u[:, 0] < self._p
        if not sampled.any():
            return
        drawn = u[:, 1:].reshape(len(u), self._channels, 1 + self.per_channel)
        chosen = np.flatnonzero((sampled[:, None] & (drawn[..., 0] < self._p_channel)).ravel())
        if not len(chosen):
            return
        values = drawn.reshape(-1, 1 + self.per_channel)[chosen, 1:]
        flat, rows = image.flatten(0, 1), rows_of(chosen, image.device)
        flat[rows] = self.apply(flat[rows], values)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        """Transform channels x (n, z, y, x) given their uniform numbers (n, per_channel); may change x in place."""
        raise NotImplementedError


def _column(values: NDArray[Any], x: Tensor) -> Tensor:
    """Reshape one value per channel of x for broadcasting."""
    return torch.from_numpy(values.astype(np.float32)).to(x.device).view(-1, *(1,) * (x.dim() - 1))


def _asks(transform: Any, **settings: Any) -> None:
    for name, value in settings.items():
        if getattr(transform, name) != value:
            raise Untranslatable.of(f"{type(transform).__name__} with {name}={getattr(transform, name)!r}")


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
    """`GaussianNoiseTransform`, one deviation a sample; every channel's noise has its own generator."""

    per_channel = 1

    def __init__(self, transform: GaussianNoiseTransform, p: float, channels: int) -> None:
        _asks(transform, synchronize_channels=True)
        super().__init__(transform, p, channels)
        self._deviation = scalar(transform.noise_variance)
        self.columns += DRAWS

    def __call__(self, image: Tensor, u: Floats) -> None:
        deviations = np.repeat(self._deviation(u[:, -DRAWS:]), self._channels)
        drawn = u[:, 1:-DRAWS].reshape(-1, 2)
        chosen = np.repeat(u[:, 0] < self._p, self._channels) & (drawn[:, 0] < self._p_channel)
        flat = image.flatten(0, 1)
        for row in np.flatnonzero(chosen):
            generator = torch.Generator(image.device)
            generator.manual_seed(int(drawn[row, 1] * 2**53))
            noise = torch.empty_like(flat[row]).normal_(generator=generator)
            flat[row].add_(noise, alpha=float(deviations[row]))


class Blur(Intensity):
    """`GaussianBlurTransform`: a deviation for every channel and axis."""

    def __init__(self, transform: GaussianBlurTransform, p: float, channels: int, axes: int) -> None:
        _asks(transform, synchronize_channels=False, synchronize_axes=False)
        self.per_channel = DRAWS * axes
        super().__init__(transform, p, channels)
        self._axes = axes
        self._sigma = scalar(transform.blur_sigma)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        sigmas = self._sigma(u.reshape(len(u), self._axes, DRAWS))
        for axis in range(self._axes):
            x = _blurred(x, axis + 1, sigmas[:, axis])
        return x


def _blurred(x: Tensor, axis: int, sigmas: Floats) -> Tensor:
    """Convolve every channel along an axis with its own Gaussian (`blur_dimension`), reflected at the borders."""
    size = x.shape[axis]
    # Reflection cannot reach beyond the patch.
    radii = np.minimum([_compute_kernel_size(s, truncate=upstream.BLUR_TRUNCATE) // 2 for s in sigmas], size - 1)
    widest = int(radii.max())
    if widest == 0:
        return x
    offsets = np.arange(-widest, widest + 1)
    kernels = np.exp(-0.5 * (offsets[None] / sigmas[:, None]) ** 2) * (np.abs(offsets)[None] <= radii[:, None])
    kernels /= kernels.sum(axis=1, keepdims=True)
    reflected = np.abs(np.arange(-widest, size + widest))
    reflected = np.where(reflected > size - 1, 2 * (size - 1) - reflected, reflected)
    padded = x.index_select(axis, torch.from_numpy(reflected).to(x.device))
    result = torch.zeros_like(x)
    for k in range(len(offsets)):
        result.addcmul_(padded.narrow(axis, k, size), _column(kernels[:, k], x))
    return result


class Brightness(Intensity):
    """`MultiplicativeBrightnessTransform`."""

    def __init__(self, transform: MultiplicativeBrightnessTransform, p: float, channels: int) -> None:
        _asks(transform, synchronize_channels=False)
        super().__init__(transform, p, channels)
        self._factor = scalar(transform.multiplier_range)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        return x.mul_(_column(self._factor(u), x))


class Contrast(Intensity):
    """`ContrastTransform`, the range of intensities preserved."""

    def __init__(self, transform: ContrastTransform, p: float, channels: int) -> None:
        _asks(transform, synchronize_channels=False, preserve_range=True)
        super().__init__(transform, p, channels)
        self._factor = scalar(transform.contrast_range)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        mean, (low, high) = _mean(x), _range(x)
        x.sub_(mean).mul_(_column(self._factor(u), x)).add_(mean)
        return torch.minimum(torch.maximum(x, low), high)


class LowResolution(Intensity):
    """`SimulateLowResolutionTransform`: down by the nearest voxel, up by linear interpolation, axis by axis."""

    def __init__(self, transform: SimulateLowResolutionTransform, p: float, channels: int, axes: int) -> None:
        _asks(transform, synchronize_channels=False, synchronize_axes=True, allowed_channels=None)
        super().__init__(transform, p, channels)
        ignored = set(transform.ignore_axes or ())
        self._along = [axis for axis in range(axes) if axis not in ignored]
        self._scale = scalar(transform.scale)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        scales = self._scale(u).astype(np.float32)
        for axis in self._along:
            x = _coarsened(x, axis + 1, scales)
        return x


def _coarsened(x: Tensor, axis: int, scales: NDArray[np.float32]) -> Tensor:
    size = x.shape[axis]
    small = np.array([round(size * float(s)) for s in scales])
    if (small == size).all():
        return x
    small = np.maximum(small, 1)[:, None]
    source = np.maximum((np.arange(size)[None] + 0.5) * small / size - 0.5, 0.0)
    below = np.floor(source).astype(np.int64)
    weight = source - below
    shape = [1] * x.dim()
    shape[0], shape[axis] = len(x), size

    def take(coarse: NDArray[np.int64]) -> Tensor:
        fine = np.floor((np.minimum(coarse, small - 1) + 0.5) * size / small).astype(np.int64)
        index = torch.from_numpy(fine).to(x.device).view(shape)
        return x.gather(axis, index.expand(x.shape))

    share = torch.from_numpy(weight.astype(np.float32)).to(x.device).view(shape)
    return torch.lerp(take(below), take(below + 1), share.expand(x.shape))


class Gamma(Intensity):
    """`GammaTransform`, mean and deviation retained."""

    def __init__(self, transform: GammaTransform, p: float, channels: int) -> None:
        _asks(transform, synchronize_channels=False, p_retain_stats=1.0)
        if transform.p_invert_image not in (0.0, 1.0):
            raise Untranslatable.of(f"GammaTransform with p_invert_image={transform.p_invert_image}")
        super().__init__(transform, p, channels)
        self._sign = -1.0 if transform.p_invert_image else 1.0
        self._gamma = scalar(transform.gamma)

    def apply(self, x: Tensor, u: Floats) -> Tensor:
        low, high = _range(x)
        extent = high - low
        mean = _mean(x)
        std = _deviation(x - mean)
        # The smallest value of the inverted image is the negative of the largest.
        start = low if self._sign > 0 else high
        x.sub_(start).mul_(self._sign / extent.clamp(min=_EPSILON))
        # A power, but for pow_, which rounds otherwise at the ends of what a thread is given.
        x.log_().mul_(_column(self._gamma(u), x)).exp_()
        mean_now = _mean(x)
        std_now = _deviation(x - mean_now) * extent
        scale = extent * std / std_now.clamp(min=_EPSILON) * self._sign
        return x.sub_(mean_now).mul_(scale).add_(mean)
