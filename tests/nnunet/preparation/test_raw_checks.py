"""Faults of raw datasets in one report (names, folds, images and labels), and accepted datasets."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ppgs.doctor.findings import Finding
from ppgs.doctor.folder import check_folder
from ppgs.nnunet.preparation.raw_checks import Geometry, examine_images
from tests.helpers.datasets import (
    MIRRORED,
    dataset,
    decathlon,
    pictures,
    read,
    redescribe,
    relabel,
    voxels,
    write,
)


def check(folder: Path, *, geometry: Geometry = "header", fold: int | str | None = None) -> list[Finding]:
    is_decathlon = folder.name.startswith("Task")
    found = check_folder(folder, folder.parent / "preprocessed", decathlon=is_decathlon, fold=fold)
    examined = examine_images(
        found, decathlon=is_decathlon, geometry=geometry, report=lambda done, total: None, threads=2
    )
    return [*found.findings, *(examined.findings if examined is not None else ())]


def of_level(findings: list[Finding], level: str) -> list[str]:
    return [f"{f.what} | {f.where} | {f.remedy}" for f in findings if f.level == level]


def rename(folder: Path, change: Callable[[str], str]) -> None:
    for path in list(folder.iterdir()):
        path.rename(path.with_name(change(path.name)))


Spoil = Callable[[Path], Path]


def no_channel_number(tmp: Path) -> Path:
    folder = dataset(tmp, cases=[f"scan_{k:04d}" for k in range(1, 7)])
    rename(folder / "imagesTr", lambda name: name.replace("_0000.nii", ".nii"))
    return folder


def some_without_channel_number(tmp: Path) -> Path:
    folder = dataset(tmp)
    (folder / "imagesTr" / "f_0000.nii.gz").rename(folder / "imagesTr" / "f.nii.gz")
    return folder


def channel_numbers_differ(tmp: Path) -> Path:
    folder = dataset(tmp, channels=2)
    for number in (1, 0):
        (folder / "imagesTr" / f"a_{number:04d}.nii.gz").rename(folder / "imagesTr" / f"a_{number + 1:04d}.nii.gz")
    return folder


def a_channel_is_missing(tmp: Path) -> Path:
    folder = dataset(tmp, channels=2)
    (folder / "imagesTr" / "b_0001.nii.gz").unlink()
    return folder


def all_second_channels_are_missing(tmp: Path) -> Path:
    folder = dataset(tmp)
    redescribe(folder, channel_names={"0": "T1", "1": "T2"})
    return folder


def label_without_image(tmp: Path) -> Path:
    folder = dataset(tmp)
    (folder / "imagesTr" / "f_0000.nii.gz").unlink()
    return folder


def label_with_channel_number(tmp: Path) -> Path:
    folder = dataset(tmp)
    rename(folder / "labelsTr", lambda name: name.replace(".nii", "_0000.nii"))
    return folder


def other_ending(tmp: Path) -> Path:
    folder = dataset(tmp)
    for path in (folder / "imagesTr" / "f_0000.nii.gz", folder / "labelsTr" / "f.nii.gz"):
        write(read(path), path.with_name(path.name.removesuffix(".gz")))
        path.unlink()
    return folder


def another_ending_everywhere(tmp: Path) -> Path:
    folder = dataset(tmp, ending=".nrrd")
    redescribe(folder, file_ending=".nii.gz")
    return folder


def dead_link(tmp: Path) -> Path:
    folder = dataset(tmp)
    path = folder / "imagesTr" / "f_0000.nii.gz"
    path.unlink()
    path.symlink_to(tmp / "gone.nii.gz")
    return folder


def folder_for_a_file(tmp: Path) -> Path:
    folder = dataset(tmp)
    (folder / "imagesTr" / "f_0000.nii.gz").unlink()
    (folder / "imagesTr" / "f_0000.nii.gz").mkdir()
    return folder


def no_labels_folder(tmp: Path) -> Path:
    folder = dataset(tmp)
    shutil.rmtree(folder / "labelsTr")
    return folder


def labels_is_a_file(tmp: Path) -> Path:
    folder = no_labels_folder(tmp)
    (folder / "labelsTr").write_text("")
    return folder


def no_images(tmp: Path) -> Path:
    folder = dataset(tmp)
    for name in ("imagesTr", "labelsTr"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    return folder


def name_ends_in_seg(tmp: Path) -> Path:
    return dataset(tmp, cases=["a", "a_seg", "b", "c", "d", "e"])


def only_case_ends_in_seg(tmp: Path) -> Path:
    return dataset(tmp, cases=["a_seg", "b", "c", "d", "e"])


def names_differ_in_case(tmp: Path) -> Path:
    return dataset(tmp, cases=["scan_A", "Scan_a", "b", "c", "d"])


def mirrored_labels(tmp: Path) -> Path:
    folder = dataset(tmp)
    for path in sorted((folder / "labelsTr").iterdir()):
        write(read(path), path, direction=MIRRORED)
    return folder


def labels_elsewhere(tmp: Path) -> Path:
    folder = dataset(tmp)
    write(read(folder / "labelsTr" / "c.nii.gz"), folder / "labelsTr" / "c.nii.gz", origin=(50.0, 0.0, 0.0))
    return folder


def mirrored_channel(tmp: Path) -> Path:
    folder = dataset(tmp, channels=2)
    path = folder / "imagesTr" / "d_0001.nii.gz"
    write(read(path), path, direction=MIRRORED)
    return folder


def channel_shapes(tmp: Path) -> Path:
    folder = dataset(tmp, channels=2)
    write(voxels(0, (16, 20, 26))[0], folder / "imagesTr" / "a_0001.nii.gz")
    return folder


def sheared(tmp: Path) -> Path:
    folder = dataset(tmp)
    path = folder / "imagesTr" / "a_0000.nii.gz"
    affine = np.eye(4)
    affine[0, 1] = 0.3
    nibabel.save(nibabel.Nifti1Image(np.ones((24, 20, 16), np.float32), affine), path)
    return folder


def forms_differ(tmp: Path) -> Path:
    folder = dataset(tmp)
    for path in (folder / "imagesTr" / "a_0000.nii.gz", folder / "labelsTr" / "a.nii.gz"):
        image = nibabel.load(path)
        changed = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
        changed.header.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 2)
        changed.header.set_qform(np.eye(4), 1)
        nibabel.save(changed, path)
    return folder


def no_foreground(tmp: Path) -> Path:
    folder = dataset(tmp)
    relabel(folder, np.zeros_like)
    return folder


def only_ignored(tmp: Path) -> Path:
    folder = dataset(tmp, labels={"background": 0, "organ": 1, "ignore": 2})
    relabel(folder, lambda label: 2 * (label > 0).astype(np.uint8))
    return folder


def value_255(tmp: Path) -> Path:
    folder = dataset(tmp)
    relabel(folder, lambda label: np.where(label == 2, 255, label).astype(np.uint8))
    return folder


def interpolated_label(tmp: Path) -> Path:
    folder = dataset(tmp)
    relabel(folder, lambda label: label * np.float32(0.5))
    return folder


def flat_among_volumes(tmp: Path) -> Path:
    folder = dataset(tmp)
    image, label = voxels(9, (20, 24))
    write(image, folder / "imagesTr" / "a_0000.nii.gz")
    write(label, folder / "labelsTr" / "a.nii.gz")
    return folder


def first_image_is_damaged(tmp: Path) -> Path:
    folder = dataset(tmp, ending=".nrrd")
    (folder / "imagesTr" / "a_0000.nrrd").write_bytes(b"NRRD0004\n")
    return folder


def colour_labels(tmp: Path) -> Path:
    folder = pictures(tmp, colours=True)
    shutil.copy(folder / "imagesTr" / "p0_0000.png", folder / "labelsTr" / "p0.png")
    return folder


def colours_for_one_channel(tmp: Path) -> Path:
    folder = pictures(tmp, colours=True)
    redescribe(folder, channel_names={"0": "grey"})
    return folder


def listed_files_are_missing(tmp: Path) -> Path:
    folder = dataset(tmp)
    listed = {c: {"images": [f"imagesTr/{c}_0000.nii.gz"], "label": f"labelsTr/{c}.nii.gz"} for c in "abcdef"}
    listed["g"] = {"images": ["imagesTr/g_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}
    redescribe(folder, dataset=listed)
    return folder


def listed_channels_differ(tmp: Path) -> Path:
    folder = dataset(tmp, channels=3)
    listed = {
        c: {"images": [f"imagesTr/{c}_000{i}.nii.gz" for i in (0, 1)], "label": f"labelsTr/{c}.nii.gz"} for c in "ab"
    }
    redescribe(folder, dataset=listed)
    return folder


def decathlon_label_missing(tmp: Path) -> Path:
    folder = decathlon(tmp)
    (folder / "labelsTr" / "b.nii.gz").unlink()
    return folder


def decathlon_mirrored(tmp: Path) -> Path:
    folder = decathlon(tmp)
    path = folder / "labelsTr" / "b.nii.gz"
    write(read(path), path, direction=MIRRORED)
    return folder


def decathlon_other_ending(tmp: Path) -> Path:
    folder = decathlon(tmp)
    path = folder / "imagesTr" / "b.nii.gz"
    write(read(path), path.with_name("b.nii"))
    path.unlink()
    return folder


def ending_in_capitals(tmp: Path) -> Path:
    folder = dataset(tmp)
    rename(folder / "labelsTr", lambda name: name.replace("f.nii.gz", "f.NII.GZ"))
    return folder


def label_in_capitals(tmp: Path, make: Callable[[Path], Path] = dataset) -> Path:
    folder = make(tmp)
    rename(folder / "labelsTr", lambda name: name.replace("f.nii.gz", "F.nii.gz"))
    return folder


def decathlon_in_capitals(tmp: Path) -> Path:
    return label_in_capitals(tmp, decathlon)


def label_in_another_unicode_form(tmp: Path) -> Path:
    folder = dataset(tmp, cases=["M\u00fcller", *"abcde"])
    rename(folder / "labelsTr", lambda name: unicodedata.normalize("NFD", name))
    return folder


def values_beyond_eight_bits(tmp: Path) -> Path:
    folder = dataset(tmp)
    write(read(folder / "labelsTr" / "a.nii.gz") * np.uint16(257), folder / "labelsTr" / "a.nii.gz")
    write(read(folder / "labelsTr" / "b.nii.gz") + np.int64(2**32), folder / "labelsTr" / "b.nii.gz")
    write(read(folder / "labelsTr" / "c.nii.gz").astype(np.int8) - np.int8(1), folder / "labelsTr" / "c.nii.gz")
    return folder


def other_units(tmp: Path) -> Path:
    folder = dataset(tmp)
    for case, spacing in (("a", 0.001), ("b", 1000.0)):
        for path in (folder / "imagesTr" / f"{case}_0000.nii.gz", folder / "labelsTr" / f"{case}.nii.gz"):
            write(read(path), path, spacing=(spacing,) * 3)
    return folder


def header(folder: Path, at: int, value: np.generic) -> Path:
    """Write a number into the header of case a's image."""
    path = folder / "imagesTr" / "a_0000.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[at : at + value.nbytes] = value.tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    return folder


def an_affine_that_is_nan(tmp: Path) -> Path:
    return header(dataset(tmp), 280, np.float32(np.nan))


def an_axis_without_voxels(tmp: Path) -> Path:
    return header(dataset(tmp), 42, np.int16(0))


def compressed_twice(tmp: Path) -> Path:
    folder = dataset(tmp)
    path = folder / "imagesTr" / "a_0000.nii.gz"
    path.write_bytes(gzip.compress(path.read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (ending_in_capitals, ["1 file with other capitals in the ending than .nii.gz: f.NII.GZ"]),
        (label_in_capitals, ["names of the label F and of its image f differ in capitals"]),
        (decathlon_in_capitals, ["names of the label F and of its image f differ in capitals"]),
        (label_in_another_unicode_form, ["Unicode form", "give both the same name"]),
        (values_beyond_eight_bits, ["label values 257, 514", "label values 4294967296", "label values -1"]),
        (other_units, ["spacing 0.001 x 0.001 x 0.001 mm where the median is 1 x 1 x 1 mm (z y x): a, b"]),
        (an_affine_that_is_nan, ["its header has NaN", "a_0000.nii.gz"]),
        (an_axis_without_voxels, ["its header gives the shape 0x20x16"]),
        (compressed_twice, ["compressed twice", "gunzip a_0000.nii.gz"]),
        (no_channel_number, ["6 images without channel number", "scan_0001.nii.gz to scan_0001_0000.nii.gz"]),
        (some_without_channel_number, ["1 image without channel number: f.nii.gz"]),
        (channel_numbers_differ, ["a with channel 0001, 0002; dataset.json names 2 channels (MR0, MR1)"]),
        (a_channel_is_missing, ["b with channel 0000; dataset.json names 2"]),
        (all_second_channels_are_missing, ["1 channel, dataset.json names 2 (T1, T2)", "_0000 to _0001"]),
        (label_without_image, ["image of f is missing"]),
        (label_with_channel_number, ["labels carry no channel number: rename a_0000.nii.gz to a.nii.gz"]),
        (other_ending, ["another ending than .nii.gz: f_0000.nii", "another ending than .nii.gz: f.nii"]),
        (another_ending_everywhere, ["6 files of another ending than .nii.gz: a_0000.nrrd"]),
        (dead_link, ["links that lead nowhere: f_0000.nii.gz"]),
        (folder_for_a_file, ["folders where files are expected: f_0000.nii.gz"]),
        (no_labels_folder, ["the folder has no labelsTr"]),
        (labels_is_a_file, ["labelsTr is a file, not a folder"]),
        (no_images, ["no training images"]),
        (name_ends_in_seg, ["end in _seg: a_seg"]),
        (only_case_ends_in_seg, ["end in _seg: a_seg"]),
        (names_differ_in_case, ["'Scan_a' and 'scan_A' would replace each other"]),
        (
            mirrored_labels,
            ["the label is not on the grid", "x runs the other way", "(a, b, c, d, e, f)", "--geometry voxel"],
        ),
        (labels_elsewhere, ["50 mm (50 voxels)", "labelsTr/c.nii.gz"]),
        (mirrored_channel, ["this channel is not on the grid of d_0000.nii.gz", "d_0001.nii.gz"]),
        (channel_shapes, ["16x20x26 here, 16x20x24 in a_0000.nii.gz"]),
        (sheared, ["ITK", "sheared by 17 degrees", "resample"]),
        (forms_differ, ["qform and sform differ: spacing 1 x 1 x 1 mm and 2 x 2 x 2 mm"]),
        (no_foreground, ["no case has any foreground"]),
        (only_ignored, ["no case has any foreground"]),
        (value_255, ["label values 255 are not in dataset.json", "(a, b, c, d, e, f)"]),
        (interpolated_label, ["label values 0.5 are not", "nearest neighbour"]),
        (flat_among_volumes, ["with two and with three axes; two have: a"]),
        (first_image_is_damaged, ["cannot be read", "a_0000.nrrd"]),
        (colour_labels, ["the label has 3 channels"]),
        (colours_for_one_channel, ["3 channels, dataset.json names 1 (grey)"]),
        (listed_files_are_missing, ["lists a file of g that is not there", "g_0000.nii.gz"]),
        (listed_channels_differ, ["a lists 2 images; dataset.json names 3 channels"]),
        (decathlon_label_missing, ["the label of b.nii.gz is missing"]),
        (decathlon_mirrored, ["the label is not on the grid", "(b)"]),
        (decathlon_other_ending, ["another ending than .nii.gz: b.nii"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_mistakes(tmp_path: Path, spoil: Spoil, said: list[str]) -> None:
    folder = spoil(tmp_path)
    told = "\n".join(of_level(check(folder), "error"))
    assert all(text in told for text in said), told
    assert "Traceback" not in told


def test_voxel_order_accepts_what_lies_elsewhere(tmp_path: Path) -> None:
    for spoil in (mirrored_labels, labels_elsewhere, mirrored_channel, decathlon_mirrored):
        folder = spoil(tmp_path / spoil.__name__)
        assert of_level(check(folder, geometry="voxel"), "error") == []
    assert of_level(check(channel_shapes(tmp_path / "shapes"), geometry="voxel"), "error") != []


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


def test_too_few_cases_for_five_folds(tmp_path: Path) -> None:
    folder = dataset(tmp_path, cases="abcd")
    assert "4 cases are too few" in of_level(check(folder, fold=0), "error")[0]
    assert of_level(check(folder, fold="all"), "error") == []
    assert "--fold all" in "".join(of_level(check(folder), "warning"))
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "d"]}]))
    assert of_level(check(folder, fold=0), "error") == []


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ([{"train": ["a", "b", "ghost"], "val": ["c"]}], "fold 0"),
        ([{"train": ["a", "b"], "val": ["c"]}, {"train": ["a"], "val": ["a", "b"]}], "a is trained on and validated"),
        ([{"train": ["a", "b"], "val": []}], "without validation cases"),
        ([{"train": [], "val": ["a"]}], "without training cases"),
        ([{"train": ["a"], "val": ["b_0000"]}], "write b for b_0000"),
        ([{"train": ["a"], "val": ["b.nii.gz"]}], "write b for b.nii.gz"),
        ([{"train": ["a"], "validation": ["b"]}], "missing key 'val'; keys are 'train', 'validation'"),
        ([{"train": "a", "val": ["b"]}], "'train' is not a list"),
        ([{"train": [1], "val": ["b"]}], "'train' is not a list"),
        ([["a"]], "a fold is a list"),
        ({"0": {"train": ["a"], "val": ["b"]}}, "not a list but an object"),
        ([], "an empty list"),
        ("[", "is the file whole?"),
        ('\ufeff[{"train": ["a"], "val": ["b"]}]', "save it as UTF-8 without BOM"),
        ('[{"train": ["a"], "val": ["b"], "val": ["c"]}]', "the key 'val' is there twice"),
    ],
)
def test_folds(tmp_path: Path, splits: object, said: str) -> None:
    folder = dataset(tmp_path)
    text = splits if isinstance(splits, str) else json.dumps(splits)
    (folder / "splits_final.json").write_text(text)
    assert said in "".join(of_level(check(folder), "error"))
    # The prepared folds are those in use.
    prepared = folder.parent / "preprocessed"
    prepared.mkdir()
    (prepared / "splits_final.json").write_text(json.dumps([{"train": list("abc"), "val": list("def")}]))
    assert of_level(check(folder), "error") == []


def test_what_is_odd_is_a_warning(tmp_path: Path) -> None:
    folder = dataset(tmp_path, numTraining=8)
    (folder / "imagesTr" / "notes.txt").write_text("")
    (folder / "imagesTr" / ".g_0000.nii.gz").write_bytes(b"")
    shutil.copy(folder / "labelsTr" / "a.nii.gz", folder / "imagesTr" / "a_0000.nii.gz")
    told = "".join(of_level(check(folder), "warning"))
    assert "begin with a dot: .g_0000.nii.gz" in told and "images with the voxels of their label: a |" in told
    assert "numTraining is 8, and there are 6" in told and "passed over" in told and "notes.txt" in told


def test_cases_listed_twice_in_a_fold_are_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "a", "b"], "val": ["c", "c"]}]))
    found = check(folder)
    assert of_level(found, "error") == []
    twice = [line for line in of_level(found, "warning") if "more than once" in line]
    assert len(twice) == 2 and twice[0].startswith("a is") and twice[1].startswith("c is")


def test_a_dead_link_to_folds_is_not_passed_over(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    (folder / "splits_final.json").symlink_to("nowhere")
    assert "cannot be read" in of_level(check(folder), "error")[0]


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
