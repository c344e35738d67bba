"""Volumes, Dice and pictures of segmentations whose values are known."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from ppgs.errors import BadInput
from ppgs.nnunet.inference.overlay import best_slice, colours, overlay
from ppgs.nnunet.inference.scores import dice
from ppgs.nnunet.inference.volumes import amounts

REGIONS = {"whole": (1, 2), "core": (2,), "absent": (7,)}


def write(path: Path, values: Any, spacing: tuple[float, ...], direction: tuple[float, ...] | None = None) -> Path:
    image = sitk.GetImageFromArray(np.asarray(values))
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def labels() -> Any:
    values = np.zeros((6, 20, 30), np.uint8)
    values[2, 5:10, 5:25], values[3, 5:15, 5:25], values[3, 6:8, 6:8] = 1, 1, 2
    return values


class TestVolumes:
    def test_labels_and_regions_in_the_images_spacing(self, labels: Any, tmp_path: Path) -> None:
        found = amounts(write(tmp_path / "a.nii.gz", labels, (0.5, 2, 4)), REGIONS, SimpleITKIO())
        assert [(one.voxels, one.area_mm2) for one in found.values()] == [(300, None), (4, None), (0, None)]
        assert [one.volume_ml for one in found.values()] == pytest.approx([1.2, 0.016, 0])

    def test_a_single_slice_of_a_volume_has_a_volume(self, labels: Any, tmp_path: Path) -> None:
        found = amounts(write(tmp_path / "a.nii.gz", labels[3:4], (1, 1, 5)), REGIONS, SimpleITKIO())
        assert (found["whole"].volume_ml, found["whole"].area_mm2) == (pytest.approx(1.0), None)

    def test_2d_has_an_area_where_there_is_a_spacing(self, labels: Any, tmp_path: Path) -> None:
        found = amounts(write(tmp_path / "a.nii.gz", labels[3], (0.5, 2)), REGIONS, SimpleITKIO())["whole"]
        assert (found.voxels, found.volume_ml, found.area_mm2) == (200, None, pytest.approx(200))
        Image.fromarray(labels[3]).save(tmp_path / "a.png")
        found = amounts(tmp_path / "a.png", REGIONS, NaturalImage2DIO())["whole"]
        assert (found.voxels, found.volume_ml, found.area_mm2) == (200, None, None)

    def test_the_spacing_of_tiff_files_is_where_nnunet_writes_it(self, labels: Any, tmp_path: Path) -> None:
        reader = Tiff3DIO()
        reader.write_seg(labels, str(tmp_path / "a.tif"), {"spacing": (4, 2, 0.5)})
        assert amounts(tmp_path / "a.tif", REGIONS, reader)["whole"].volume_ml == pytest.approx(1.2)
        (tmp_path / "a.json").unlink()
        found = amounts(tmp_path / "a.tif", REGIONS, reader)["whole"]
        assert (found.voxels, found.volume_ml) == (300, None)


class TestDice:
    def test_it_is_nnunets_with_regions_an_ignore_label_and_absent_classes(self, labels: Any, tmp_path: Path) -> None:
        for name in ("ours", "theirs"):
            (tmp_path / name).mkdir()
        reference = np.roll(labels, 2, 1)
        reference[:, :, 20:] = 9
        a = write(tmp_path / "ours" / "a.nii.gz", labels, (1, 1, 3))
        b = write(tmp_path / "theirs" / "a.nii.gz", reference, (1, 1, 3))
        found = dice(a, b, REGIONS, 9, SimpleITKIO())
        keys: list[Any] = [(1, 2), 2, 7]
        summary = tmp_path / "summary.json"
        compute_metrics_on_folder(
            str(b.parent), str(a.parent), str(summary), SimpleITKIO(), ".nii.gz", keys, 9, num_processes=1
        )
        theirs = json.loads(summary.read_text())["metric_per_case"][0]["metrics"]
        for key, value in zip(keys, found.values(), strict=True):
            assert value == pytest.approx(theirs[str(key)]["Dice"], nan_ok=True)
        assert math.isnan(found["absent"]) and 0 < found["whole"] < 1

    def test_what_cannot_be_compared_is_named(self, labels: Any, tmp_path: Path) -> None:
        a, b = (write(tmp_path / f"{n}.nii.gz", v, (1, 1, 1)) for n, v in (("a", labels), ("b", labels[:1])))
        with pytest.raises(BadInput, match="shape") as caught:
            dice(a, b, REGIONS, None, SimpleITKIO())
        assert caught.value.problems[0].where == str(a)
        b.write_bytes(b.read_bytes()[:50])
        with pytest.raises(BadInput, match="cannot be compared"):
            dice(a, b, REGIONS, None, SimpleITKIO())


class TestPictures:
    def test_the_slice_with_most_foreground_across_the_widest_spacing(self, labels: Any, tmp_path: Path) -> None:
        grey = np.arange(labels.size).reshape(labels.shape).astype(np.float32)
        axial = best_slice(
            write(tmp_path / "i.nii.gz", grey, (1, 2, 4)), write(tmp_path / "s.nii.gz", labels, (1, 2, 4))
        )
        assert (axial.labels == labels[3]).all() and axial.grey is not None and (axial.grey == grey[3]).all()
        assert axial.spacing == (2, 1) and axial.place == "slice 4 of 6"
        turned = write(tmp_path / "t.nii.gz", labels, (9, 2, 4))
        sagittal = best_slice(tmp_path / "none.nii.gz", turned)
        # The head is up.
        assert sagittal.labels.shape == (6, 20) and (sagittal.labels > 0).sum(axis=1).argmax() == 6 - 1 - 3
        assert sagittal.grey is None and sagittal.spacing == (4, 2)

    def test_however_an_image_is_stored_the_front_is_up_and_the_patients_right_is_left(
        self, labels: Any, tmp_path: Path
    ) -> None:
        labels[3, 0, 0] = 7
        for number, flipped in enumerate((labels, labels[:, ::-1, ::-1])):
            sign = (1, -1)[number]
            path = write(tmp_path / f"{number}.nii.gz", flipped, (1, 1, 4), (sign, 0, 0, 0, sign, 0, 0, 0, 1))
            assert best_slice(path, path).labels[0, 0] == 7

    def test_proportions_colours_and_legend(self, labels: Any, tmp_path: Path) -> None:
        flat = write(tmp_path / "s.nii.gz", labels[3], (1, 3))
        picture = np.asarray(Image.open(io.BytesIO(overlay(flat, flat, {"a": (1,), "b": (2,)}, "case"))))
        shown = picture[:, : round(640 * 30 / 60)]
        assert shown.shape[:2] == (640, 320)
        for colour in colours(2):
            assert (shown == colour).all(axis=-1).any() and (picture[:, 320:] == colour).all(axis=-1).any()
        nothing = write(tmp_path / "n.nii.gz", labels[3] * 0, (1, 3))
        assert Image.open(io.BytesIO(overlay(flat, nothing, {"Größe Ж": (1,)}, "case"))).size[1] == 640

    def test_an_image_with_channels_or_colours_is_drawn_in_grey(self, labels: Any, tmp_path: Path) -> None:
        four = sitk.JoinSeries([sitk.GetImageFromArray(labels * factor) for factor in (1.0, 2.0)])
        sitk.WriteImage(four, str(tmp_path / "four.nii.gz"))
        seg = write(tmp_path / "s.nii.gz", labels, (1, 1, 1))
        shown = best_slice(tmp_path / "four.nii.gz", seg)
        assert shown.grey is not None and (shown.grey == labels[3]).all()
        Image.fromarray(np.stack([labels[3]] * 3, -1)).save(tmp_path / "rgb.png")
        Image.fromarray(labels[3]).save(tmp_path / "seg.png")
        assert best_slice(tmp_path / "rgb.png", tmp_path / "seg.png").grey is not None

    def test_many_classes_differ(self) -> None:
        many = colours(117)
        assert len(set(many)) == 117 and colours(5) == many[:5]
