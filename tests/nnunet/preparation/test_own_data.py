"""A dataset from two folders: real preparations of each format, mistakes that people make, and what changes later."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io as pictures

from ppgs.commands.own_data import OwnDataRequest, make_dataset
from ppgs.commands.prepare import Prepared, prepare
from ppgs.errors import BadInput
from ppgs.nnunet.preparation import own_data
from ppgs.nnunet.preparation.conversion import CHECKED
from ppgs.own_data import RECORD
from ppgs.runs.atomic import write_text
from ppgs.tasks import Roots
from tests.helpers.datasets import SHAPE, read, voxels, write

CASES = tuple("abcdef")


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    roots = Roots.under(tmp_path / "root")
    for name, folder in roots.environment.items():
        # What a preparation sets is taken back after the test.
        monkeypatch.setenv(name, folder)
    # One process imports nnU-Net faster than several.
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    return roots


def write_file(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix.lower()
    if ending == ".png":
        pictures.imsave(path, array, check_contrast=False)
    elif ending in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        write(array, path)


def folders(
    tmp: Path,
    ending: str = ".nii.gz",
    *,
    cases: Sequence[str] = CASES,
    channels: Sequence[str] = ("",),
    suffix: str = "",
    shape: Sequence[int] = SHAPE,
    change: Callable[[np.ndarray], np.ndarray] = lambda label: label,
) -> Path:
    """Folders `images` and `labels`."""
    for seed, case in enumerate(cases):
        image, label = voxels(seed, shape)
        if ending.lower() == ".png":
            image = np.clip(image, 0, 255).astype(np.uint8)
        for number, channel in enumerate(channels):
            write_file(image + image.dtype.type(number), tmp / "images" / f"{case}{channel}{ending}")
        write_file(change(label), tmp / "labels" / f"{case}{suffix}{ending}")
    return tmp


def request(tmp: Path, name: str = "Mine", **options: Any) -> OwnDataRequest:
    return OwnDataRequest(**{"images": tmp / "images", "labels": tmp / "labels", "name": name, **options})


def make(asked: OwnDataRequest, roots: Roots, **options: Any) -> tuple[Path, list[str]]:
    """Make the raw dataset; return it and all messages."""
    told: list[str] = []
    dataset = make_dataset(
        asked, roots, lambda step, done, total: told.append(step), note=told.append, warn=told.append, **options
    )
    return roots.raw / dataset, told


def prepared(asked: OwnDataRequest, roots: Roots, configuration: str = "3d_fullres") -> tuple[Prepared, list[str]]:
    raw, told = make(asked, roots)
    made = prepare(raw.name, roots, "nnUNetPlans", configuration, lambda *_: None, warn=told.append)
    return made, told


def described(raw: Path) -> dict[str, Any]:
    return json.loads((raw / "dataset.json").read_text())


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def problems_of(asked: OwnDataRequest, roots: Roots) -> str:
    with pytest.raises(BadInput) as raised:
        make(asked, roots)
    assert raised.value.exit_code == 2
    assert not list(roots.raw.glob("*_*")) if roots.raw.is_dir() else True
    assert not list(roots.raw.glob(".*"))
    assert all(p.remedy for p in raised.value.problems)
    return "\n".join(f"{p.what} | {p.where} | {p.remedy}" for p in raised.value.problems)


class TestFormats:
    @pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
    def test_volumes_are_linked(self, ending: str, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path / "own", ending, suffix="_seg")
        before = content(own)
        made, _ = prepared(request(own, values=["1=organ"], channels=["0=CT"]), roots)
        assert made.dataset == "Dataset101_Mine"
        assert described(made.raw) == {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "organ": 1, "label_2": 2},
            "numTraining": 6,
            "file_ending": ending,
        }
        image = made.raw / "imagesTr" / f"a_0000{ending}"
        assert image.is_symlink()
        assert image.samefile(own / "images" / f"a{ending}")
        assert len(list(made.preprocessed.glob("nnUNetPlans_3d_fullres/*.pkl"))) == 6
        plans = json.loads((made.preprocessed / "nnUNetPlans.json").read_text())
        assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
        assert content(own) == before

    def test_pictures_whose_labels_are_0_and_255(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".PNG", shape=(48, 56), change=lambda label: (label > 0).astype(np.uint8) * 255)
        made, told = prepared(request(own, values=["255=organ"]), roots, "2d")
        assert described(made.raw)["labels"] == {"background": 0, "organ": 1}
        assert described(made.raw)["file_ending"] == ".png"
        assert set(np.unique(pictures.imread(made.raw / "labelsTr" / "a.png"))) == {0, 1}
        assert set(np.unique(pictures.imread(own / "labels" / "a.PNG"))) == {0, 255}
        assert any("255 to 1" in line for line in told)

    def test_colour_pictures_have_three_channels(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".png", shape=(48, 56))
        for path in (own / "images").iterdir():
            grey = pictures.imread(path)
            write_file(np.stack([grey, grey // 2, 255 - grey], -1), path)
        raw, _ = make(request(own), roots)
        assert list(described(raw)["channel_names"].values()) == ["red", "green", "blue"]

    def test_tiff_volumes_with_and_without_spacing(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".tif", suffix="_label")
        (own / "images" / "a.json").write_text('{"spacing": [2, 1, 1]}')
        made, told = prepared(request(own), roots)
        assert described(made.raw)["file_ending"] == ".tiff"
        assert (made.raw / "labelsTr" / "a.json").samefile(own / "images" / "a.json")
        assert json.loads((made.raw / "imagesTr" / "b.json").read_text()) == {"spacing": [1, 1, 1]}
        assert any("1 mm is assumed" in line for line in told)
        fingerprint = json.loads((made.preprocessed / "dataset_fingerprint.json").read_text())
        assert sorted(fingerprint["spacings"])[-1] == [2, 1, 1]

    def test_tiff_pictures(self, tmp_path: Path, roots: Roots) -> None:
        raw, _ = make(request(folders(tmp_path, ".tiff", shape=(48, 56))), roots)
        assert described(raw)["file_ending"] == ".tif"

    def test_what_nnunet_cannot_read_is_converted(self, tmp_path: Path, roots: Roots) -> None:
        for name, ending, stored in (("M", ".mhd", ".mha"), ("N", ".nhdr", ".nrrd"), ("H", ".hdr", ".nii.gz")):
            own = folders(tmp_path / name, ending)
            raw, _ = make(request(own, name), roots)
            image = raw / "imagesTr" / f"a_0000{stored}"
            assert not image.is_symlink()
            assert (read(image) == read(own / "images" / f"a{ending}")).all()

    def test_compressed_and_plain_nifti_are_one_format(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".nii")
        for path in (own / "labels").iterdir():
            write(read(path), path.with_name(f"{path.name}.gz"))
            path.unlink()
        raw, _ = make(request(own), roots)
        assert described(raw)["file_ending"] == ".nii.gz"
        assert (read(raw / "imagesTr" / "a_0000.nii.gz") == read(own / "images" / "a.nii")).all()
        assert (raw / "labelsTr" / "a.nii.gz").is_symlink()

    def test_channels_by_suffix_and_folders_per_case(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, channels=("_t1", "_FLAIR"))
        for path in list((own / "images").iterdir()):
            (own / "images" / path.name[0]).mkdir(exist_ok=True)
            path.rename(own / "images" / path.name[0] / path.name)
        raw, _ = make(request(own, channels=["t1=T1w"]), roots)
        assert described(raw)["channel_names"] == {"0": "flair", "1": "T1w"}
        assert (raw / "imagesTr" / "a_0001.nii.gz").samefile(own / "images" / "a" / "a_t1.nii.gz")

    def test_all_channels_in_one_file(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path)
        for path in (own / "images").iterdir():
            image = nibabel.load(path)
            array = np.stack([image.get_fdata(dtype=np.float32)] * 2, -1)
            nibabel.save(nibabel.Nifti1Image(array, image.affine), path)
        raw, _ = make(request(own), roots)
        assert described(raw)["channel_names"] == {"0": "channel_0", "1": "channel_1"}


Spoil = Callable[[Path], Any]


def relabel(own: Path, change: Callable[[np.ndarray], np.ndarray], case: str = "b") -> None:
    path = own / "labels" / f"{case}.nii.gz"
    write(change(read(path)), path)


MISTAKES: dict[str, tuple[Spoil, str]] = {
    "an image without label": (lambda own: (own / "labels" / "b.nii.gz").unlink(), "no label belongs to this image"),
    "a label without image": (lambda own: (own / "images" / "b.nii.gz").unlink(), "no image belongs to this label"),
    "mixed formats": (
        lambda own: (
            write(read(own / "labels" / "b.nii.gz"), own / "labels" / "b.nrrd")
            and (own / "labels" / "b.nii.gz").unlink()
        ),
        "images and labels of different formats: 11 NIfTI",
    ),
    "different sizes": (lambda own: relabel(own, lambda label: label[:-1]), "the label's shape 15x20x24"),
    "fractions": (lambda own: relabel(own, lambda label: label.astype(np.float32) * 0.5), "are no integers: 0.5"),
    "negative values": (lambda own: relabel(own, lambda label: -label.astype(np.int16)), "below 0: -2, -1"),
    "empty labels": (
        lambda own: [relabel(own, lambda label: label * 0, case) for case in CASES],
        "every label is empty",
    ),
    "images for labels": (
        lambda own: [relabel(own, lambda label: np.arange(label.size).reshape(label.shape), case) for case in CASES],
        "different values",
    ),
    "two files for one case": (
        lambda own: write(read(own / "images" / "b.nii.gz"), own / "images" / "B.nii.gz"),
        "2 files for b",
    ),
    "no bytes": (lambda own: (own / "labels" / "b.nii.gz").write_bytes(b""), "the file is empty"),
    "a JPEG": (lambda own: (own / "images" / "b.jpg").write_bytes(b"x"), "JPEG is lossy"),
    "DICOM": (lambda own: (own / "images" / "1.dcm").write_bytes(b"x"), "dcm2niix"),
    "labels among the images": (
        lambda own: [write(read(own / "labels" / f"{c}.nii.gz"), own / "images" / f"{c}_seg.nii.gz") for c in CASES],
        "files that look like labels are among the images",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, tmp_path: Path, roots: Roots) -> None:
    spoil, expected = MISTAKES[mistake]
    own = folders(tmp_path / "own")
    spoil(own)
    before = content(own)
    told = problems_of(request(own), roots)
    assert expected in told
    # Files are named as the user knows them.
    assert str(roots.raw) not in told
    assert content(own) == before


def test_all_mistakes_at_once(tmp_path: Path, roots: Roots) -> None:
    own = folders(tmp_path)
    (own / "labels" / "f.nii.gz").unlink()
    relabel(own, lambda label: label.astype(np.float32) + 0.5, "a")
    relabel(own, lambda label: label[1:], "c")
    (own / "images" / "g.jpg").write_bytes(b"x")
    told = problems_of(request(own, values=["7=x"]), roots)
    for expected in ("no label belongs", "are no integers", "the label's shape", "JPEG is lossy", "the value '7'"):
        assert expected in told


def test_a_channel_that_one_case_lacks(tmp_path: Path, roots: Roots) -> None:
    own = folders(tmp_path, channels=("_0000", "_0001"))
    (own / "images" / "c_0001.nii.gz").unlink()
    assert "c has no image of channel 0001" in problems_of(request(own), roots)


class TestPictures:
    def test_coloured_labels(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".png", shape=(48, 56))
        write_file(np.stack([pictures.imread(own / "labels" / "b.png")] * 3, -1), own / "labels" / "b.png")
        assert "the label has 3 channels, as colour pictures have" in problems_of(request(own), roots)

    def test_a_picture_in_colour_among_grey_ones(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".png", shape=(48, 56))
        write_file(np.stack([pictures.imread(own / "images" / "b.png")] * 3, -1), own / "images" / "b.png")
        assert f"3 channels, dataset.json names 1 (image) | {own / 'images' / 'b.png'}" in problems_of(
            request(own), roots
        )

    def test_transparency(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".png", shape=(48, 56))
        for path in (own / "images").iterdir():
            write_file(np.stack([pictures.imread(path)] * 4, -1), path)
        assert "alpha channel" in problems_of(request(own), roots)

    def test_one_page_and_several(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".tif", shape=(48, 56))
        write_file(np.zeros((5, 8, 8), np.uint16), own / "images" / "b.tif")
        assert "with one page and with several: b.tif" in problems_of(request(own), roots)


class TestFolders:
    def test_the_same_folder_twice(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path)
        (own / "link").symlink_to(own / "images")
        for labels in (own / "images", own / "link"):
            assert "are the same folder" in problems_of(request(own, labels=labels), roots)

    def test_one_inside_the_other(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path)
        (own / "labels").rename(own / "images" / "labels")
        told = problems_of(request(own, labels=own / "images" / "labels"), roots)
        assert "the labels' folder is inside the images' folder" in told
        told = problems_of(request(own, images=own / "images" / "labels", labels=own / "images"), roots)
        assert "the images' folder is inside the labels' folder" in told

    def test_no_folder_and_a_file(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, cases="a")
        told = problems_of(request(own, images=own / "none", labels=own / "labels" / "a.nii.gz", name="a b"), roots)
        for expected in ("no such folder (--images)", "a file, not a folder", "use letters, digits, _ . -: a_b"):
            assert expected in told

    def test_data_are_not_written_into_inputs(self, tmp_path: Path) -> None:
        own = folders(tmp_path)
        roots = Roots.under(own / "images" / "root")
        assert "nnUNet_raw would lie in the folder of --images" in problems_of(request(own), roots)
        assert not (own / "images" / "root").exists()

    def test_names_and_numbers_that_are_taken(self, tmp_path: Path, roots: Roots) -> None:
        own, other = folders(tmp_path / "own"), folders(tmp_path / "other")
        raw, _ = make(request(own, dataset_id=7), roots)
        assert raw.name == "Dataset007_Mine"
        for asked, expected in (
            (request(other), f"the name Mine is taken by Dataset007_Mine, made from {own}"),
            (request(other, "Other", dataset_id=7), "the number 7 is taken by Dataset007_Mine"),
            (request(own, dataset_id=8), "these folders are Dataset007_Mine already"),
            (request(other, "Other", dataset_id=999), "the number 999 is taken by Dataset999_Demo"),
        ):
            with pytest.raises(BadInput) as raised:
                make(asked, roots)
            assert expected in raised.value.problems[0].what
        assert make(request(own), roots)[0] == raw
        assert make(request(other, "Other"), roots)[0].name == "Dataset101_Other"
        assert make(request(other, "Large", dataset_id=1024), roots)[0].name == "Dataset1024_Large"
        # nnU-Net would find two datasets with the number 102: it compares how their names begin.
        assert make(request(folders(tmp_path / "next"), "Next"), roots)[0].name == "Dataset103_Next"

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [("4", "My4"), ("demo", "MyDemo"), ("Task04_Liver", "Liver --id 4"), ("Task00_X", "X")],
    )
    def test_names_that_mean_another_task(self, name: str, remedy: str, tmp_path: Path, roots: Roots) -> None:
        with pytest.raises(BadInput, match="as a task it means") as raised:
            make(request(folders(tmp_path), name), roots)
        assert raised.value.problems[0].remedy == f"--name {remedy}"


class TestAgain:
    def test_the_same_command_changes_nothing(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, change=lambda label: label * 2)
        raw, _ = make(request(own, values=["2=organ"]), roots)
        before = content(raw)
        for values in (["2=organ"], []):
            assert make(request(own, values=values), roots) == (raw, [])
        assert content(raw) == before

    def test_changes_are_followed(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, change=lambda label: label * 2)
        made, _ = prepared(request(own, values=["2=organ"]), roots)
        converted = (made.raw / "labelsTr" / "c.nii.gz").stat().st_mtime_ns
        # A new case, a changed label, a new image, a case that is gone.
        image, label = voxels(9)
        write(image, own / "images" / "g.nii.gz")
        write(label * 2, own / "labels" / "g.nii.gz")
        relabel(own, lambda label: np.minimum(label, 2), "a")
        write(image, own / "images" / "d.nii.gz")
        for part in ("images", "labels"):
            (own / part / "f.nii.gz").unlink()
        made, told = prepared(request(own), roots)
        assert {p.name[0] for p in (made.raw / "labelsTr").iterdir()} == set("abcdeg")
        assert described(made.raw)["labels"] == {"background": 0, "organ": 1, "label_4": 2}
        assert read(made.raw / "labelsTr" / "a.nii.gz").max() == 1
        assert (made.raw / "labelsTr" / "c.nii.gz").stat().st_mtime_ns == converted
        text = "\n".join(told)
        assert "again because their raw files changed: a, d" in text
        assert "new cases: g" in text
        assert "gone from the raw dataset, whose prepared files are removed: f" in text
        assert {p.stem for p in made.preprocessed.glob("nnUNetPlans_3d_fullres/*.pkl")} == set("abcdeg")

    def test_a_new_value_moves_the_others(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, change=lambda label: (label > 0).astype(np.uint8) * 2)
        make(request(own, values=["2=organ"]), roots)
        relabel(own, lambda label: label // 2, "a")
        raw, _ = make(request(own, values=["1=new"]), roots)
        assert described(raw)["labels"] == {"background": 0, "new": 1, "organ": 2}
        assert read(raw / "labelsTr" / "b.nii.gz").max() == 2

    def test_spacing_files_of_tiff_volumes_are_followed(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".tif")
        prepared(request(own), roots)
        (own / "images" / "a.json").write_text('{"spacing": [2, 1, 1]}')
        (own / "labels" / "b.json").write_text('{"spacing": [1, 1, 1]}')
        made, told = prepared(request(own), roots)
        assert (made.raw / "imagesTr" / "a.json").samefile(own / "images" / "a.json")
        assert (made.raw / "labelsTr" / "b.json").samefile(own / "labels" / "b.json")
        assert not list(made.raw.glob("ppgs_replaced"))
        assert any("raw files changed: a" in line for line in told)
        (own / "images" / "a.json").write_text('{"spacing": [3, 1, 1]}')
        _, told = prepared(request(own), roots)
        assert any("raw files changed: a" in line for line in told)
        (own / "images" / "a.json").unlink()
        raw, _ = make(request(own), roots)
        assert json.loads((raw / "imagesTr" / "a.json").read_text()) == {"spacing": [1, 1, 1]}
        assert make(request(own), roots) == (raw, [])

    def test_the_spacing_file_in_a_cases_own_folder(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ".tif")
        for case in CASES:
            (own / "images" / case).mkdir()
            (own / "images" / f"{case}.tif").rename(own / "images" / case / "image.tif")
        (own / "images" / "a" / "image.json").write_text('{"spacing": [2, 1, 1]}')
        raw, _ = make(request(own), roots)
        assert (raw / "imagesTr" / "a.json").samefile(own / "images" / "a" / "image.json")

    @pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr"])
    def test_voxels_beside_their_header_are_followed(self, ending: str, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, ending)
        header, image = own / "images" / f"b{ending}", voxels(9)[0]
        # Compressed, the header would give the size of the voxels.
        sitk.WriteImage(sitk.GetImageFromArray(voxels(1)[0]), str(header))
        raw, _ = make(request(own), roots)
        assert make(request(own), roots) == (raw, [])
        before = header.stat()
        sitk.WriteImage(sitk.GetImageFromArray(image), str(header))
        os.utime(header, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert header.stat().st_size == before.st_size
        make(request(own), roots)
        (made,) = raw.glob("imagesTr/b_0000.*")
        assert (read(made) == image).all()
        assert not list(raw.glob("ppgs_replaced"))

    @pytest.mark.parametrize("step", ["values_of", "examine_images"])
    def test_a_file_that_changes_meanwhile_is_followed_later(
        self, tmp_path: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        own = folders(tmp_path, change=lambda label: label * 2)
        original, changed = getattr(own_data, step), list[bool]()

        def change(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            if not changed:
                changed.append(True)
                relabel(own, lambda label: np.minimum(label, 2), "b")
            return found

        monkeypatch.setattr(own_data, step, change)
        make(request(own), roots)
        monkeypatch.setattr(own_data, step, original)
        raw, told = make(request(own), roots)
        assert told and read(raw / "labelsTr" / "b.nii.gz").max() == 1

    def test_names_of_what_is_gone_are_dropped(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, channels=("_t1", "_t2"))
        make(request(own, values=["1=organ", "2=core"], channels=["t1=A", "t2=B"]), roots)
        for case in CASES:
            relabel(own, lambda label: np.minimum(label, 1), case)
            (own / "images" / f"{case}_t2.nii.gz").unlink()
        raw, _ = make(request(own), roots)
        assert described(raw)["labels"] == {"background": 0, "organ": 1}
        assert described(raw)["channel_names"] == {"0": "A"}
        assert make(request(own), roots) == (raw, [])
        for option, name in (("values", "2=core"), ("channels", "t2=B")):
            with pytest.raises(BadInput):
                make(request(own, **{option: [name]}), roots)  # type: ignore[arg-type]

    def test_edits_in_the_dataset_are_kept(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path, change=lambda label: label * 2)
        raw, _ = make(request(own), roots)
        relabel_in_raw = raw / "labelsTr" / "b.nii.gz"
        write(read(relabel_in_raw) * 0 + 1, relabel_in_raw)
        edited = described(raw) | {"description": "mine"}
        (raw / "dataset.json").write_text(json.dumps(edited))
        relabel(own, lambda label: np.minimum(label, 2), "a")
        make(request(own), roots)
        assert described(raw) == edited
        assert (read(relabel_in_raw) == 1).all()
        relabel(own, lambda label: np.minimum(label, 2), "b")
        _, told = make(request(own, values=["2=organ"]), roots)
        assert any("what was edited" in line for line in told)
        (aside,) = (raw / "ppgs_replaced").iterdir()
        assert (read(aside / "labelsTr" / "b.nii.gz") == 1).all()
        assert json.loads((aside / "dataset.json").read_text()) == edited
        assert "organ" in described(raw)["labels"]

    def test_a_kill_while_changes_are_taken_over_makes_nothing_look_edited(
        self, tmp_path: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = folders(tmp_path, change=lambda label: label * 2)
        make(request(own), roots)
        for case in "ab":
            relabel(own, lambda label: np.minimum(label, 2), case)
        # An image elsewhere, to which another link leads.
        for case in CASES:
            (own / "images" / case).mkdir()
            (own / "images" / f"{case}.nii.gz").rename(own / "images" / case / "image.nii.gz")

        def killed(path: Path, text: str) -> None:
            if path.name == CHECKED:
                raise KeyboardInterrupt
            write_text(path, text)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(own_data, "write_text", killed)
            make(request(own, values=["2=organ"]), roots)
        raw, told = make(request(own, values=["2=organ"]), roots)
        assert not any("edited" in line for line in told) and not list(raw.glob("ppgs_replaced"))
        assert read(raw / "labelsTr" / "a.nii.gz").max() == 1
        assert (raw / "imagesTr" / "a_0000.nii.gz").samefile(own / "images" / "a" / "image.nii.gz")
        assert make(request(own), roots) == (raw, [])

    def test_a_mistake_leaves_the_dataset_as_it_was(self, tmp_path: Path, roots: Roots) -> None:
        own = folders(tmp_path)
        raw, _ = make(request(own), roots)
        before = content(raw)
        relabel(own, lambda label: label[1:], "b")
        with pytest.raises(BadInput, match="the label's shape"):
            make(request(own), roots)
        assert content(raw).keys() == before.keys()
        assert (raw / RECORD).read_bytes() == before[str(raw / RECORD)][0]

    def test_where_links_cannot_be_made_files_are_copied(
        self, tmp_path: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        own = folders(tmp_path)
        monkeypatch.setattr(Path, "symlink_to", refuse)
        raw, _ = make(request(own), roots)
        assert not any(path.is_symlink() for path in raw.rglob("*"))
        assert make(request(own), roots) == (raw, [])
        relabel(own, lambda label: np.minimum(label, 1), "a")
        make(request(own), roots)
        assert read(raw / "labelsTr" / "a.nii.gz").max() == 1


def test_a_person_is_asked_for_names(tmp_path: Path, roots: Roots) -> None:
    own = folders(tmp_path, channels=("_t1", "_t2"))
    asked: list[Any] = []

    def answer(unnamed: Any) -> tuple[dict[str, str], dict[str, str]]:
        asked.append(unnamed)
        return {"0": "T1w"}, {"2": "core"}

    raw, _ = make(request(own, channels=["t2=T2w"]), roots, ask=answer)
    assert (asked[0].channels, asked[0].values) == ({"0": "t1"}, {"1": "label_1", "2": "label_2"})
    assert described(raw)["channel_names"] == {"0": "T1w", "1": "T2w"}
    assert described(raw)["labels"] == {"background": 0, "label_1": 1, "core": 2}
