from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.stats import ks_2samp

from ppgs.errors import Untranslatable
from ppgs.nnunet.data.augmentation import Crops, Moved, translate
from ppgs.nnunet.data.augmentation.intensity import Blur, Brightness, Contrast, Gamma, LowResolution
from ppgs.nnunet.data.augmentation.scalars import scalar
from ppgs.nnunet.data.augmentation.spatial import Mirror, Spatial
from ppgs.nnunet.data.crops import Case, box, crop_origins, cut, labels_in
from ppgs.nnunet.data.samplewise import without_memory

SHAPE = (12, 10, 14)


def images(count: int = 3, channels: int = 2, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, channels, *shape, generator=torch.Generator().manual_seed(1))


INTENSITIES = [
    (Brightness, MultiplicativeBrightnessTransform((1.2, 1.2), False, 1), ()),
    (Contrast, ContrastTransform((0.8, 0.8), True, False, 1), ()),
    (Contrast, ContrastTransform((1.3, 1.3), True, False, 1), ()),
    (Gamma, GammaTransform((1.4, 1.4), 0, False, 1, 1), ()),
    (Gamma, GammaTransform((0.7, 0.7), 1, False, 1, 1), ()),
    (Blur, GaussianBlurTransform((0.9, 0.9), False, False, 1), (3,)),
    (Blur, GaussianBlurTransform((0.5, 0.5), False, False, 1), (3,)),
    (LowResolution, SimulateLowResolutionTransform((0.6, 0.6), False, True, None, p_per_channel=1), (3,)),
    (LowResolution, SimulateLowResolutionTransform((0.93, 0.93), False, True, (0,), p_per_channel=1), (3,)),
]


@pytest.mark.parametrize(("ours", "original", "axes"), INTENSITIES)
def test_a_transform_gives_the_values_of_the_original(ours: Any, original: Any, axes: tuple[int, ...]) -> None:
    given = images()
    expected = torch.stack([original(image=sample.clone())["image"] for sample in given])
    transform = ours(original, 1.0, given.shape[1], *axes)
    transform(given, np.random.default_rng(0).random((len(given), transform.columns)))
    assert torch.allclose(given, expected, atol=2e-5)


@pytest.mark.parametrize(("ours", "original", "axes"), INTENSITIES)
def test_what_is_not_drawn_stays_as_it_is(ours: Any, original: Any, axes: tuple[int, ...]) -> None:
    given = images(4)
    before = given.clone()
    transform = ours(original, 0.5, given.shape[1], *axes)
    u = np.random.default_rng(0).random((4, transform.columns))
    u[:, 0] = (0.4, 0.6, 0.6, 0.4)
    transform(given, u)
    assert torch.equal(given[1:3], before[1:3])
    assert not torch.equal(given[0], before[0]) and not torch.equal(given[3], before[3])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shape", [(9, 11, 10), (16, 14)])
@pytest.mark.parametrize(("rotation", "scaling"), [(0.4, 1.0), (0.0, 1.3), (-0.5, 0.75), (1.2, 1.4)])
def test_moved_patches_equal_the_originals(
    shape: tuple[int, ...], rotation: float, scaling: float, regions: bool
) -> None:
    original = SpatialTransform(
        shape,
        0,
        False,
        p_rotation=1,
        rotation=(rotation, rotation),
        p_scaling=1,
        scaling=(scaling, scaling),
        p_synchronize_scaling_across_axes=1,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    crop = tuple(s + 5 for s in shape)
    image = images(2, 2, crop)
    labels = torch.randint(0, 4, (2, 1, *crop), dtype=torch.int16, generator=torch.Generator().manual_seed(2))
    if regions:
        # A block within a background, and a sample of one label alone.
        labels[0] = 0
        labels[0, :, 4:9, 5:12] = 2
        labels[1] = 3
    expected = [original(image=i.clone(), segmentation=s.clone()) for i, s in zip(image, labels, strict=True)]
    spatial = Spatial(original, in_plane=False)
    moved, matrices = spatial.draw(np.random.default_rng(0).random((2, spatial.columns)))
    assert moved.tolist() == [0, 1]
    made, segmented = spatial.resample(image, labels, (0, 1, 2, 3), matrices, np.zeros((2, len(shape))), shape)
    assert torch.allclose(made, torch.stack([e["image"] for e in expected]), atol=1e-4)
    # Where two labels have equal scores to the last bit of half precision, a rounding of the grid decides.
    same = segmented == torch.stack([e["segmentation"] for e in expected])
    assert same.float().mean() > 0.99


def test_padding_that_becomes_background_need_not_be_told_from_it() -> None:
    original = SpatialTransform(
        (9, 11, 10), 0, False, p_rotation=1, rotation=(0.4, 0.4), border_mode_seg="constant", padding_value_seg=-1
    )
    # Background and padding around a block and beside it; another sample is a mixture.
    labels = torch.randint(-1, 3, (2, 1, 14, 16, 15), dtype=torch.int16, generator=torch.Generator().manual_seed(5))
    labels[0] = 0
    labels[0, :, :, :, 9:] = -1
    labels[0, :, 4:8, 3:9, 5:11] = 2
    found = []
    for alike in (False, True):
        spatial = Spatial(original, in_plane=False, padding_is_background=alike)
        _, matrices = spatial.draw(np.zeros((2, spatial.columns)))
        _, moved = spatial.resample(
            images(2, 1, (14, 16, 15)), labels, (-1, 0, 1, 2), matrices, np.zeros((2, 3)), (9, 11, 10)
        )
        found.append(moved)
    assert (found[0] == -1).any() and (found[0] == 2).any()
    assert torch.equal(*(moved.clamp(min=0) for moved in found))


def test_labels_are_told_alike_however_many_are_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SpatialTransform(
        (9, 11, 10), 0, False, p_rotation=1, rotation=(0.4, 0.4), border_mode_seg="constant", padding_value_seg=-1
    )
    labels = torch.randint(0, 40, (2, 1, 12, 13, 12), dtype=torch.int16, generator=torch.Generator().manual_seed(6))
    spatial = Spatial(original, in_plane=False)
    _, matrices = spatial.draw(np.zeros((2, spatial.columns)))
    given = (images(2, 1, (12, 13, 12)), labels, tuple(range(40)), matrices, np.zeros((2, 3)), (9, 11, 10))
    _, at_once = spatial.resample(*given)
    monkeypatch.setattr("ppgs.nnunet.data.augmentation.spatial._INDICATORS", 7 * labels.numel())
    _, some_by_some = spatial.resample(*given)
    assert len(at_once.unique()) > 30
    assert torch.equal(at_once, some_by_some)


def test_in_plane_all_slices_move_alike_and_stay_in_place() -> None:
    original = SpatialTransform(
        (8, 8), 0, False, p_rotation=1, rotation=(0.7, 0.7), border_mode_seg="constant", padding_value_seg=-1
    )
    spatial = Spatial(original, in_plane=True)
    image = images(1, 1, (3, 12, 12))
    _, matrices = spatial.draw(np.zeros((1, spatial.columns)))
    labels = torch.zeros(1, 1, 3, 12, 12, dtype=torch.int16)
    made, _ = spatial.resample(image, labels, (0,), matrices, np.zeros((1, 3)), (3, 8, 8))
    for z in range(3):
        alone = original(image=image[0, :, z].clone())["image"]
        assert torch.allclose(made[0, :, z], alone, atol=1e-4)


def pipeline(patch: tuple[int, ...], **options: Any) -> Any:
    axes = tuple(range(len(patch)))
    scales = [[1.0] * len(patch), [0.5] * len(patch)]
    return without_memory(nnUNetTrainer.get_training_transforms(patch, (-0.5, 0.5), scales, axes, False, **options))


def crops_of(image: torch.Tensor, labels: torch.Tensor, patch: tuple[int, ...], augmentation: Any, seed: int) -> Crops:
    """Return the same large crop for every sample, and its middle for samples that are not moved."""
    uniforms = np.random.default_rng(seed).random((len(image), augmentation.columns))
    moved, matrices = augmentation.movement(uniforms)
    inset = tuple(slice(c // 2 - p // 2, c // 2 - p // 2 + p) for c, p in zip(image.shape[2:], patch, strict=True))
    return Crops(
        image=image[(slice(None), slice(None), *inset)].clone(),
        labels=labels[(slice(None), slice(None), *inset)].clone(),
        moved=[
            Moved(
                rows=moved,
                image=image[moved],
                labels=labels[moved],
                values=(0, 1, 2),
                matrices=matrices,
                offsets=np.zeros((len(moved), len(patch))),
            )
        ]
        if len(moved)
        else [],
        uniforms=uniforms,
    )


def test_without_randomness_targets_are_those_of_nnunet() -> None:
    labels = torch.randint(-1, 3, (3, 1, *SHAPE), dtype=torch.int16, generator=torch.Generator().manual_seed(4))
    image = images(3, 1)
    for regions, ignore in ((None, None), ([(1, 2), 2], None), ([(1, 2), 2], 3)):
        made = nnUNetTrainer.get_validation_transforms(
            [[1, 1, 1], [0.5, 0.5, 1], [0.25, 0.5, 0.5]], regions=regions, ignore_label=ignore
        )
        augmentation = translate(made, SHAPE, 1)
        data, target = augmentation(crops_of(image, labels, SHAPE, augmentation, 0))
        assert torch.equal(data, image)
        for i in range(3):
            expected = made(image=image[i].clone(), segmentation=labels[i].clone())["segmentation"]
            for ours, theirs in zip(target, expected, strict=True):
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours[i], theirs)


def test_images_and_targets_are_distributed_as_nnunets() -> None:
    """Statistics of 1,500 samples a side; the measures show noise, contrast, blur, scaling and labels."""
    patch, count = (8, 8, 8), 1500
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 14)] * 3, indexing="ij"))
    image = (grid.pow(2).sum(0).sqrt() + 0.3 * grid[0])[None].repeat(count, 1, 1, 1, 1)
    labels = (image < 0.8).to(torch.int16) + (image < 0.5).to(torch.int16)
    theirs = pipeline(patch)
    np.random.seed(0)
    torch.manual_seed(0)
    made = [theirs(image=image[0].clone(), segmentation=labels[0].clone()) for _ in range(count)]
    expected = torch.stack([m["image"] for m in made]), torch.stack([m["segmentation"][0] for m in made])
    augmentation = translate(pipeline(patch), patch, 1)
    data, target = augmentation(crops_of(image, labels, patch, augmentation, 0))
    found = data, target[0]

    def statistics(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        flat = x.flatten(1)
        edges = x.diff(dim=2).abs().flatten(1).mean(1)
        upper, lower = x[:, :, :4].flatten(1).mean(1), x[:, :, 4:].flatten(1).mean(1)
        return {
            "mean": flat.mean(1),
            "deviation": flat.std(1),
            "least": flat.amin(1),
            "most": flat.amax(1),
            "edges": edges,
            "asymmetry": upper - lower,
            "first": (y == 1).float().flatten(1).mean(1),
            "second": (y == 2).float().flatten(1).mean(1),
        }

    ours, originals = statistics(*found), statistics(*expected)
    for name in ours:
        p = ks_2samp(ours[name].numpy().round(5), originals[name].numpy().round(5)).pvalue
        assert p > 1e-3, f"{name}: p = {p:.2g}"


def test_contrast_factors_are_drawn_as_bgcontrast_does() -> None:
    given = BGContrast((0.75, 1.25))
    np.random.seed(0)
    theirs = [given() for _ in range(2000)]
    ours = scalar(given)(np.random.default_rng(0).random((2000, 2)))
    assert ks_2samp(theirs, ours).pvalue > 1e-3


def test_a_sample_depends_on_its_own_numbers_alone() -> None:
    patch = (8, 8, 8)
    augmentation = translate(pipeline(patch), patch, 1)
    image, labels = images(6, 1, (14, 14, 14)), torch.zeros(6, 1, 14, 14, 14, dtype=torch.int16)
    whole, _ = augmentation(crops_of(image, labels, patch, augmentation, 3))
    crops = crops_of(image, labels, patch, augmentation, 3)
    (moved,) = crops.moved
    assert moved.rows.tolist()[-1] == 5
    alone = Crops(
        image=crops.image[5:],
        labels=crops.labels[5:],
        moved=[
            Moved(
                rows=np.zeros(1, np.int64),
                image=moved.image[-1:],
                labels=moved.labels[-1:],
                values=(0,),
                matrices=moved.matrices[-1:],
                offsets=moved.offsets[-1:],
            )
        ],
        uniforms=crops.uniforms[5:],
    )
    assert torch.equal(augmentation(alone)[0][0], whole[5])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_samples_do_not_depend_on_the_number_of_threads(count: int) -> None:
    """Patches large enough that PyTorch shares out their voxels, of odd sizes for what is left at the ends."""
    patch, crop = (39, 37, 41), (56, 52, 60)
    augmentation = translate(pipeline(patch), patch, 1)
    image = images(count, 1, crop)
    labels = torch.randint(0, 3, (count, 1, *crop), dtype=torch.int16, generator=torch.Generator().manual_seed(2))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append([augmentation(crops_of(image, labels, patch, augmentation, seed)) for seed in range(16)])
    finally:
        torch.set_num_threads(threads)
    for (data, target), *others in zip(*found, strict=True):
        for again, target_again in others:
            assert torch.equal(data, again)
            assert all(torch.equal(a, b) for a, b in zip(target, target_again, strict=True))


def test_moved_samples_need_no_more_of_a_crop_than_shows_the_image() -> None:
    patch, crop, shape = (8, 9, 10), (18, 15, 14), (9, 22, 7)
    augmentation, random = translate(pipeline(patch), patch, 1), np.random.default_rng(3)
    case = Case(
        random.normal(size=(1, *shape)).astype(np.float32), random.integers(0, 3, (1, *shape), np.int16), (), None, 0
    )
    for origin in np.array([[-5, -3, -4], [-2, 4, -6], [-7, 12, -1], [0, 0, 0]]):
        uniforms = random.random((1, augmentation.columns))
        # It is rotated.
        uniforms[:, 0] = 0
        size, start, offset = box(shape, origin, crop, fixed=0)
        assert size == (16, 15, 8) and (start >= origin).all() and (start + size <= origin + crop).all()
        found = []
        for begin, extent, centre in ((origin, crop, np.zeros(3)), (start, size, offset)):
            image, labels = np.empty((1, 1, *extent), np.float32), np.empty((1, 1, *extent), np.int16)
            cut(case, begin, image[0], labels[0])
            rows, matrices = augmentation.movement(uniforms)
            moved = Moved(
                rows=rows,
                image=torch.from_numpy(image),
                labels=torch.from_numpy(labels),
                values=labels_in(labels),
                matrices=matrices,
                offsets=centre[None],
            )
            empty = torch.zeros(1, 1, *patch)
            found.append(augmentation(Crops(empty, empty.to(torch.int16), [moved], uniforms)))
        (whole, targets), (boxed, targets_boxed) = found
        assert whole.abs().sum() > 0 and torch.allclose(whole, boxed, atol=1e-4)
        for a, b in zip(targets, targets_boxed, strict=True):
            # Where two labels have equal scores, a rounding of the grid decides.
            assert (a == b).float().mean() > 0.99


def test_the_first_axis_of_a_box_may_be_fixed() -> None:
    assert box((9, 22, 7), np.array([-5, -3, -4]), (18, 15, 14), fixed=1)[0] == (18, 15, 8)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1,), (0, 2)])
def test_every_sample_is_flipped_along_its_own_axes(axes: tuple[int, ...]) -> None:
    mirror = Mirror(MirrorTransform(axes))
    image, labels = images(9), torch.arange(9 * 8).view(9, 1, 2, 2, 2)
    u = np.random.default_rng(2).random((9, len(axes)))
    expected = []
    for sample in range(9):
        flips = [axis + 1 for axis, value in zip(axes, u[sample], strict=True) if value < 0.5]
        expected.append((image[sample].flip(flips), labels[sample].flip(flips)))
    mirror(image, labels, u)
    for sample, (flipped, flipped_labels) in enumerate(expected):
        assert torch.equal(image[sample], flipped) and torch.equal(labels[sample], flipped_labels)


def test_a_cascades_pipeline_is_not_translated() -> None:
    with pytest.raises(Untranslatable):
        translate(pipeline((8, 8, 8), is_cascaded=True, foreground_labels=[1]), (8, 8, 8), 1)


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("shape", [(20, 9, 30), (5, 40, 12)])
def test_crops_lie_where_nnunets_do(shows: bool, shape: tuple[int, ...]) -> None:
    crop, patch, count = (11, 11, 13), (8, 8, 8), 3000
    random = np.random.default_rng(5)
    voxels = {k: np.c_[np.zeros(50, int), random.integers(0, shape, (50, 3))] for k in (1, 2)}
    case = Case(np.zeros((1, *shape)), np.zeros((1, *shape)), tuple(v[:, 1:] for v in (voxels[1], voxels[2])), None, 0)

    class Loader(nnUNetDataLoader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.need_to_pad = np.array(crop) - np.array(patch)
            self.patch_size, self.has_ignore, self.annotated_classes_key = crop, False, (-1, 0, 1, 2)

    np.random.seed(0)
    loader = Loader()
    theirs = np.array([loader.get_bbox(np.array(shape), shows, voxels)[0] for _ in range(count)])
    ours = crop_origins([case] * count, np.full(count, shows), crop, patch, random.random((count, 5)))
    assert (ours.min(0) == theirs.min(0)).all() and (ours.max(0) == theirs.max(0)).all()
    for axis in range(3):
        assert ks_2samp(theirs[:, axis], ours[:, axis]).pvalue > 1e-3


def test_beyond_the_image_there_is_padding() -> None:
    data = np.arange(1, 1 + 4 * 4 * 4, dtype=np.float32).reshape(1, 4, 4, 4)
    case = Case(data, np.ones((1, 4, 4, 4), np.int8), (), None, 0)
    found, labels = np.full((1, 3, 3, 3), 9, np.float32), np.full((1, 3, 3, 3), 9, np.int16)
    cut(case, np.array([-1, 2, 0]), found, labels)
    assert (found[0, 0] == 0).all() and (labels[0, 0] == -1).all() and (labels[0, 1:, 2] == -1).all()
    assert (found[0, 1:, :2] == data[0, :2, 2:, :3]).all() and (labels[0, 1:, :2] == 1).all()
    cut(case, np.array([9, 0, 0]), found, labels)
    assert (found == 0).all() and (labels == -1).all()


@given(arrays(np.int16, st.tuples(*[st.integers(0, 4)] * 3), elements=st.integers(-1, 3) | st.integers(-1, 99)))
def test_labels_in_are_numpys_unique(labels: np.ndarray) -> None:
    assert labels_in(labels) == tuple(np.unique(labels))
