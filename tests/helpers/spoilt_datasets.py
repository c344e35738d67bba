"""Raw datasets with one mistake each."""

from __future__ import annotations

import gzip
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from tests.helpers.datasets import MIRRORED, dataset, decathlon, pictures, read, redescribe, relabel, voxels, write


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


def slices_on_the_first_axis(tmp: Path) -> Path:
    return slices(tmp, 0, (1, 1, 1))


def slices(tmp: Path, axis: int, spacing: tuple[int, int, int]) -> Path:
    """NIfTI images of one slice across this axis; axis and spacing (mm) in the order x, y, z."""
    folder = dataset(tmp, cases=())
    for seed, case in enumerate("abcdef"):
        image, label = voxels(seed, (20, 24))
        for part, content in ((f"imagesTr/{case}_0000", image), (f"labelsTr/{case}", label)):
            (path := folder / f"{part}.nii.gz").parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.expand_dims(content, axis), np.diag([*spacing, 1])), path)
    redescribe(folder, numTraining=6)
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
