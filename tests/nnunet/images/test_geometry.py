"""Grids of channels and labels: accepted and reported differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from ppgs.nnunet.images.geometry import Grid, check_channels, check_label

SHAPE = (20, 24, 28)
MIRRORED = (-1, 0, 0, 0, 1, 0, 0, 0, 1)


def itk(path: Path, shape: tuple[int, ...] = SHAPE, **place: Any) -> Path:
    image = sitk.GetImageFromArray(np.zeros(shape, np.uint8))
    for name, value in place.items():
        getattr(image, f"Set{name.title()}")(value)
    sitk.WriteImage(image, str(path))
    return path


def nifti(path: Path, sform: Any = None, qform: Any = None, pixdim: Any = None) -> Path:
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None)
    image.header.set_sform(sform, 2 if sform is not None else 0)
    image.header.set_qform(qform, 1 if qform is not None else 0)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".nii"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, ""),
        ({"origin": (0.5, 0.0, -0.4)}, ""),
        ({"origin": (0.6, 0.0, 0.0)}, "0.6 mm (0.6 voxels)"),
        # 28 voxels of 0.5 % more: the far corner is 0.14 voxels off; of 2 %, 0.55.
        ({"spacing": (1.005, 1.0, 1.0)}, ""),
        ({"spacing": (1.02, 1.0, 1.0)}, "voxels) apart"),
        ({"direction": MIRRORED}, "x runs the other way"),
        ({"direction": MIRRORED, "origin": (27.0, 0.0, 0.0)}, "x runs the other way"),
        ({"origin": (50.0, 0.0, 0.0)}, "50 mm (50 voxels)"),
        # A turn by two degrees moves the far corners by about half a millimetre more than half a voxel.
        ({"direction": (0.99939, -0.0349, 0, 0.0349, 0.99939, 0, 0, 0, 1)}, "voxels) apart"),
        ({"shape": (20, 24, 30)}, "20x24x30 is not the image's 20x24x28"),
    ],
)
def test_labels(tmp_path: Path, ending: str, place: dict[str, Any], said: str) -> None:
    image, label = itk(tmp_path / f"a_0000{ending}"), itk(tmp_path / f"a{ending}", **place)
    reader = "NibabelIO" if ending == ".nii" else "SimpleITKIO"
    found = check_label(image, label, reader, otherwise="; or --geometry voxel")
    assert [said in p.what for p in found] == ([True] if said else [])
    assert all(p.where == str(label) and p.remedy for p in found)
    in_voxels = check_label(image, label, reader, in_voxel_order=True)
    assert bool(in_voxels) == ("shape" in place)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"direction": MIRRORED}, "is not on the grid of a_0000.nii.gz"),
        ({"shape": (20, 24, 30)}, "20x24x30 here, 20x24x28 in a_0000.nii.gz"),
        # nnU-Net refuses what differs by more than 1e-5.
        ({"spacing": (1.001, 1.0, 1.0)}, "1 x 1 x 1.001 mm here, 1 x 1 x 1 mm in"),
        ({"origin": (0.3, 0.0, 0.0)}, ""),
    ],
)
def test_channels(tmp_path: Path, place: dict[str, Any], said: str) -> None:
    files = [itk(tmp_path / "a_0000.nii.gz"), itk(tmp_path / "a_0001.nii.gz", **place)]
    found = check_channels(files)
    assert [said in p.what for p in found] == ([True] if said else [])
    assert bool(check_channels(files, in_voxel_order=True)) == ("shape" in place or "spacing" in place)
    assert check_channels(files, "NaturalImage2DIO") == []


def test_a_reader_that_reorients_needs_no_common_axes(tmp_path: Path) -> None:
    image = itk(tmp_path / "a_0000.nii.gz")
    turned = itk(tmp_path / "a.nii.gz", direction=MIRRORED, origin=(27.0, 0.0, 0.0))
    assert check_label(image, turned, "NibabelIOWithReorient") == []
    assert check_label(image, turned, "NibabelIO") != []


def test_forms_that_contradict_each_other(tmp_path: Path) -> None:
    one, two, moved = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(4)
    moved[0, 3] = 30
    for name, header, said in (
        ("both", {"sform": two, "qform": one}, "spacing 1 x 1 x 1 mm and 2 x 2 x 2 mm"),
        ("pixdim", {"sform": two, "pixdim": (1, 1, 1)}, "pixdim and sform differ"),
        ("place", {"sform": moved, "qform": one}, "30 mm"),
        ("same", {"sform": two, "qform": two}, ""),
        ("only_q", {"qform": two}, ""),
        ("neither", {}, ""),
    ):
        found = check_channels([nifti(tmp_path / f"{name}.nii.gz", **header)])
        assert [said in p.what for p in found] == ([True] if said else []), name
        assert check_channels([tmp_path / f"{name}.nii.gz"], in_voxel_order=True) == []


def test_affines_that_itk_refuses(tmp_path: Path) -> None:
    sheared, flat = np.eye(4), np.diag([1.0, 1.0, 0.0, 1.0])
    sheared[0, 1] = 0.3
    (problem,) = check_channels([nifti(tmp_path / "sheared.nii.gz", sheared)], in_voxel_order=True)
    assert "ITK" in problem.what and "sheared by 17 degrees" in problem.what and "resample" in problem.remedy
    nifti(tmp_path / "sheared.nii.gz", sheared, pixdim=(1, np.hypot(1, 0.3), 1))
    assert check_channels([tmp_path / "sheared.nii.gz"], "NibabelIO") == []
    (problem,) = check_channels([nifti(tmp_path / "flat.nii.gz", flat)])
    assert "no length" in problem.what


def test_several_values_per_voxel(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.mha"))
    (problem,) = check_channels([tmp_path / "a.mha"])
    assert "3 values per voxel" in problem.what


def test_files_that_are_no_images_are_left_to_their_reader(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    (tmp_path / "b.nrrd").write_bytes(b"nothing")
    assert check_channels([tmp_path / "a.nii.gz", tmp_path / "b.nrrd", tmp_path / "absent.nii.gz"]) == []


@pytest.mark.parametrize("size", [5e-5, 1e-7, 1e4])
def test_no_unit_of_length_makes_an_axis_vanish(tmp_path: Path, size: float) -> None:
    """As the voxels of electron microscopes in millimetres."""
    image, label = (itk(tmp_path / f"{name}.nrrd", spacing=(size, size, 2 * size)) for name in ("image", "label"))
    assert check_channels((image, label)) == []
    assert Grid((4, 4, 4), np.diag([size, size, 0.0, 1.0])).is_singular
    flat = np.diag([size, size, size, 1.0])
    flat[:, 2] = flat[:, 1]
    assert Grid((4, 4, 4), flat).is_singular
