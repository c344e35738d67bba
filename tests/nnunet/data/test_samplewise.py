from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ppgs.nnunet.data.samplewise import _Blur, without_memory

ROTATION = (-0.5, 0.5)


def pipeline(patch: tuple[int, ...], *, dummy_2d: bool = False, cascade: bool = False) -> object:
    axes = tuple(range(len(patch)))
    return without_memory(
        nnUNetTrainer.get_training_transforms(
            patch, ROTATION, [[1.0] * len(patch)], axes, dummy_2d, is_cascaded=cascade, foreground_labels=[1, 2, 3]
        )
    )


def draw(transforms: object, patch: tuple[int, ...], seed: int, *, cascade: bool = False) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.normal(size=(1, *(p + 4 for p in patch))).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 4, (2 if cascade else 1, *(p + 4 for p in patch))).astype(np.int16))
    np.random.seed(seed)
    torch.manual_seed(seed)
    made = transforms(image=image, segmentation=labels)  # type: ignore[operator]
    return torch.cat([made["image"].flatten(), made["segmentation"][0].flatten().float()])


# Among the smallest patches of the Decathlon's and of two-dimensional plans, and patches below the blur's kernel.
SMALLEST = [(8, 8, 8), (4, 64, 64), (16, 32, 32), (32, 32), (4, 4), (2, 3, 8), (1, 8, 8)]


@pytest.mark.parametrize("patch", SMALLEST)
def test_every_transform_takes_the_smallest_patches(patch: tuple[int, ...]) -> None:
    transforms = pipeline(patch, dummy_2d=len(patch) == 3 and patch[1] > 3 * patch[0])
    for seed in range(60):
        assert torch.isfinite(draw(transforms, patch, seed)).all()


@pytest.mark.parametrize("cascade", [False, True])
def test_a_sample_does_not_depend_on_those_before_it(cascade: bool) -> None:
    patch = (12, 12, 12)
    busy = pipeline(patch, cascade=cascade)
    for seed in range(40):
        draw(busy, patch, seed, cascade=cascade)
    for seed in range(40, 60):
        assert torch.equal(
            draw(busy, patch, seed, cascade=cascade),
            draw(pipeline(patch, cascade=cascade), patch, seed, cascade=cascade),
        )


def test_the_blur_equals_the_original() -> None:
    image = torch.randn(1, 16, 16, 16)
    params = {"apply_to_channel": torch.tensor([True]), "sigmas": [[0.6, 0.8, 1.0]]}
    original = GaussianBlurTransform(blur_sigma=(0.5, 1.0), benchmark=True)
    ours = _Blur(blur_sigma=(0.5, 1.0), benchmark=True)
    assert torch.allclose(
        original._apply_to_image(image.clone(), **params), ours._apply_to_image(image.clone(), **params), atol=1e-5
    )
