"""Faults of raw datasets in one report (names, images and labels), and accepted datasets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import spoilt_datasets as spoilt
from tests.helpers.datasets import dataset, decathlon, pictures, read, redescribe, relabel, voxels, write
from tests.helpers.findings import check, of_level


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoilt.ending_in_capitals, ["1 file with other capitals in the ending than .nii.gz: f.NII.GZ"]),
        (spoilt.label_in_capitals, ["names of the label F and of its image f differ in capitals"]),
        (spoilt.decathlon_in_capitals, ["names of the label F and of its image f differ in capitals"]),
        (spoilt.label_in_another_unicode_form, ["Unicode form", "give both the same name"]),
        (spoilt.values_beyond_eight_bits, ["label values 257, 514", "label values 4294967296", "label values -1"]),
        (spoilt.other_units, ["spacing 0.001 x 0.001 x 0.001 mm where the median is 1 x 1 x 1 mm (z y x): a, b"]),
        (spoilt.an_affine_that_is_nan, ["its header has NaN", "a_0000.nii.gz"]),
        (spoilt.an_axis_without_voxels, ["its header gives the shape 0x20x16"]),
        (spoilt.compressed_twice, ["compressed twice", "gunzip a_0000.nii.gz"]),
        (spoilt.no_channel_number, ["6 images without channel number", "scan_0001.nii.gz to scan_0001_0000.nii.gz"]),
        (spoilt.some_without_channel_number, ["1 image without channel number: f.nii.gz"]),
        (spoilt.channel_numbers_differ, ["a with channel 0001, 0002; dataset.json names 2 channels (MR0, MR1)"]),
        (spoilt.a_channel_is_missing, ["b with channel 0000; dataset.json names 2"]),
        (spoilt.all_second_channels_are_missing, ["1 channel, dataset.json names 2 (T1, T2)", "_0000 to _0001"]),
        (spoilt.label_without_image, ["image of f is missing"]),
        (spoilt.label_with_channel_number, ["labels carry no channel number: rename a_0000.nii.gz to a.nii.gz"]),
        (spoilt.other_ending, ["another ending than .nii.gz: f_0000.nii", "another ending than .nii.gz: f.nii"]),
        (spoilt.another_ending_everywhere, ["6 files of another ending than .nii.gz: a_0000.nrrd"]),
        (spoilt.dead_link, ["links that lead nowhere: f_0000.nii.gz"]),
        (spoilt.folder_for_a_file, ["folders where files are expected: f_0000.nii.gz"]),
        (spoilt.no_labels_folder, ["the folder has no labelsTr"]),
        (spoilt.labels_is_a_file, ["labelsTr is a file, not a folder"]),
        (spoilt.no_images, ["no training images"]),
        (spoilt.name_ends_in_seg, ["end in _seg: a_seg"]),
        (spoilt.only_case_ends_in_seg, ["end in _seg: a_seg"]),
        (spoilt.names_differ_in_case, ["'Scan_a' and 'scan_A' would replace each other"]),
        (
            spoilt.mirrored_labels,
            ["the label is not on the grid", "x runs the other way", "(a, b, c, d, e, f)", "--geometry voxel"],
        ),
        (spoilt.labels_elsewhere, ["50 mm (50 voxels)", "labelsTr/c.nii.gz"]),
        (spoilt.mirrored_channel, ["this channel is not on the grid of d_0000.nii.gz", "d_0001.nii.gz"]),
        (spoilt.channel_shapes, ["16x20x26 here, 16x20x24 in a_0000.nii.gz"]),
        (spoilt.sheared, ["ITK", "sheared by 17 degrees", "resample"]),
        (spoilt.forms_differ, ["qform and sform differ: spacing 1 x 1 x 1 mm and 2 x 2 x 2 mm"]),
        (spoilt.no_foreground, ["no case has any foreground"]),
        (spoilt.only_ignored, ["no case has any foreground"]),
        (spoilt.value_255, ["label values 255 are not in dataset.json", "(a, b, c, d, e, f)"]),
        (spoilt.interpolated_label, ["label values 0.5 are not", "nearest neighbour"]),
        (spoilt.flat_among_volumes, ["with two and with three axes; two have: a"]),
        (spoilt.slices_on_the_first_axis, ["one voxel along an axis", "a, b, c, d, e, f", "the largest spacing"]),
        (spoilt.first_image_is_damaged, ["cannot be read", "a_0000.nrrd"]),
        (spoilt.colour_labels, ["the label has 3 channels"]),
        (spoilt.colours_for_one_channel, ["3 channels, dataset.json names 1 (grey)"]),
        (spoilt.listed_files_are_missing, ["lists a file of g that is not there", "g_0000.nii.gz"]),
        (spoilt.listed_channels_differ, ["a lists 2 images; dataset.json names 3 channels"]),
        (spoilt.decathlon_label_missing, ["the label of b.nii.gz is missing"]),
        (spoilt.decathlon_mirrored, ["the label is not on the grid", "(b)"]),
        (spoilt.decathlon_other_ending, ["another ending than .nii.gz: b.nii"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_mistakes(tmp_path: Path, spoil: spoilt.Spoil, said: list[str]) -> None:
    folder = spoil(tmp_path)
    told = "\n".join(of_level(check(folder), "error"))
    assert all(text in told for text in said), told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("axis", "spacing", "planned"),
    [(2, (1, 1, 1), True), (0, (5, 1, 1), True), (2, (2, 2, 1), False), (1, (1, 1, 1), False)],
)
def test_slices_lie_across_the_axis_of_the_largest_spacing(
    tmp_path: Path, axis: int, spacing: tuple[int, int, int], planned: bool
) -> None:
    """As nnU-Net plans them (`determine_transpose`)."""
    told = "\n".join(of_level(check(spoilt.slices(tmp_path, axis, spacing)), "error"))
    assert ("one voxel along an axis" not in told) == planned, told


def test_voxel_order_accepts_what_lies_elsewhere(tmp_path: Path) -> None:
    for spoil in (spoilt.mirrored_labels, spoilt.labels_elsewhere, spoilt.mirrored_channel, spoilt.decathlon_mirrored):
        folder = spoil(tmp_path / spoil.__name__)
        assert of_level(check(folder, geometry="voxel"), "error") == []
    assert of_level(check(spoilt.channel_shapes(tmp_path / "shapes"), geometry="voxel"), "error") != []


def small_shift(tmp: Path) -> Path:
    folder = dataset(tmp)
    for path in sorted((folder / "labelsTr").iterdir()):
        write(read(path), path, origin=(0.4, -0.4, 0.0), spacing=(1.001, 1.0, 1.0))
    return folder


def apple(tmp: Path) -> Path:
    folder = dataset(tmp)
    for part in ("imagesTr", "labelsTr"):
        for path in list((folder / part).iterdir()):
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(100))
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / part / name).write_bytes(b"xx")
    return folder


def listed(tmp: Path) -> Path:
    folder = dataset(tmp)
    (folder / "imagesTr").rename(folder / "scans")
    entries = {c: {"images": [f"scans/{c}_0000.nii.gz"], "label": f"labelsTr/{c}.nii.gz"} for c in "abcdef"}
    redescribe(folder, dataset=entries)
    return folder


@pytest.mark.parametrize(
    "make",
    [
        dataset,
        decathlon,
        small_shift,
        apple,
        listed,
        lambda tmp: dataset(tmp, numTraining=None),
        lambda tmp: dataset(tmp, "Dataset043_With.Dot", ending=".mha"),
        lambda tmp: dataset(tmp, ending=".nii"),
        lambda tmp: pictures(tmp, colours=True),
        lambda tmp: pictures(tmp, colours=False),
    ],
)
def test_what_passes(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    findings = check(make(tmp_path))
    assert of_level(findings, "error") == []
    assert of_level(findings, "warning") == []


def test_what_is_odd_is_a_warning(tmp_path: Path) -> None:
    folder = dataset(tmp_path, numTraining=8)
    (folder / "imagesTr" / "notes.txt").write_text("")
    (folder / "imagesTr" / ".g_0000.nii.gz").write_bytes(b"")
    shutil.copy(folder / "labelsTr" / "a.nii.gz", folder / "imagesTr" / "a_0000.nii.gz")
    told = "".join(of_level(check(folder), "warning"))
    assert "begin with a dot: .g_0000.nii.gz" in told and "images with the voxels of their label: a |" in told
    assert "numTraining is 8, and there are 6" in told and "passed over" in told and "notes.txt" in told


@pytest.mark.parametrize(
    ("channel", "ignored", "warned"), [("ct", True, True), ("CT", False, False), ("T1", True, False)]
)
def test_ignored_voxels_that_count_for_the_normalisation_of_ct(
    tmp_path: Path, channel: str, ignored: bool, warned: bool
) -> None:
    folder = dataset(
        tmp_path, channel_names={"0": channel}, labels={"background": 0, "organ": 1, "core": 2, "ignore": 3}
    )
    if ignored:
        relabel(folder, lambda label: np.where(label == 0, 3, label).astype(np.uint8))
    told = "".join(of_level(check(folder), "warning"))
    assert ("counts ignored voxels for the normalisation of CT: 9" in told) == warned
    assert ("foreground_intensity_properties_per_channel" in told) == warned


@pytest.mark.parametrize("make", [dataset, decathlon])
def test_a_name_that_is_not_utf8_does_not_end_the_process(tmp_path: Path, make: Callable[..., Path]) -> None:
    """ITK ends it with an uncaught C++ exception."""
    folder = make(tmp_path)
    for part, number in (("imagesTr", b"_0000" if make is dataset else b""), ("labelsTr", b"")):
        inside = os.fsencode(folder / part)
        try:
            os.rename(inside + b"/b" + number + b".nii.gz", inside + b"/b\xe9" + number + b".nii.gz")  # noqa: PTH104
        except OSError:
            pytest.skip("this file system takes UTF-8 names alone")
    found = of_level(check(folder), "error")
    assert len(found) == 2
    assert all("not UTF-8" in line and "b\\udce9" in line for line in found)


@pytest.mark.parametrize("count", [1, 6])
def test_a_decathlon_folder_with_pictures_is_refused(tmp_path: Path, count: int) -> None:
    folder = decathlon(tmp_path)
    for case in "abcdef"[:count]:
        image, label = voxels(1, (20, 24))
        write(image, folder / "imagesTr" / f"{case}.nii.gz")
        write(label, folder / "labelsTr" / f"{case}.nii.gz")
    assert "2 axes, where nnU-Net reads three" in of_level(check(folder), "error")[0]


def test_a_value_beside_a_whole_number_is_shown_with_its_digits(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    relabel(folder, lambda a: a * np.float32(0.99999994))
    assert "label values 0.99999994" in of_level(check(folder), "error")[0]


def test_a_reader_for_other_files_is_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path, overwrite_image_reader_writer="Tiff3DIO")
    assert "remove overwrite_image_reader_writer" in of_level(check(folder), "error")[0]


@pytest.mark.parametrize("stated", ["6", [6], True])
def test_a_number_of_cases_that_is_none_is_shown_as_it_should_be(tmp_path: Path, stated: object) -> None:
    (line,) = (f for f in of_level(check(dataset(tmp_path, numTraining=stated)), "warning") if "numTraining" in f)
    assert "expected a number" in line and '"numTraining": 6' in line


def test_files_that_all_have_another_ending_are_taken_as_meant(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    redescribe(folder, file_ending=".nii")
    assert all('"file_ending": ".nii.gz"' in line for line in of_level(check(folder), "error"))


@pytest.mark.parametrize(("there", "said"), [("ImagesTr", "is ImagesTr meant?"), ("imagesTrain", "is imagesTrain")])
def test_a_folder_of_a_similar_name_is_named(tmp_path: Path, there: str, said: str) -> None:
    folder = dataset(tmp_path)
    (folder / "imagesTr").rename(folder / there)
    assert said in of_level(check(folder), "error")[0]


def test_a_dataset_one_folder_deeper_is_found(tmp_path: Path) -> None:
    inner = dataset(tmp_path / "x")
    outer = tmp_path / inner.name
    outer.mkdir()
    inner.rename(outer / inner.name)
    assert "one folder deeper" in of_level(check(outer), "error")[0]


def test_values_that_overflow_are_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    file = folder / "imagesTr" / "b_0000.nii.gz"
    write(read(file) * np.float32(1e30), file)
    (line,) = of_level(check(folder), "error")
    assert "overflow" in line and "b_0000" in line
