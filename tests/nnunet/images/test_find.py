"""Discovery of images to segment, and their names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppgs import upstream
from ppgs.errors import BadInput, DatasetError
from ppgs.nnunet.images.find import find_images, is_file_target

NII = ".nii.gz"


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def found(source: Path, channels: int = 1, ending: str = NII) -> tuple[dict[str, list[str]], dict[str, str]]:
    result = find_images(source, channels, ending)
    images = {image.name: [f.name for f in image.files] for image in result.images}
    return images, {one.file.name: one.reason for one in result.skipped}


def test_digits_at_the_end_are_part_of_a_name_unless_they_are_a_channel(tmp_path: Path) -> None:
    images, skipped = found(folder(tmp_path, f"a_0000{NII}", f"b_0000{NII}", f"c_2021{NII}", f"d{NII}"))
    assert list(images) == ["a", "b", "c_2021", "d"] and not skipped


def test_a_plain_file_beside_a_numbered_one_is_no_image(tmp_path: Path) -> None:
    images, skipped = found(folder(tmp_path, f"p_0000{NII}", f"p{NII}", f"q{NII}"))
    assert images == {"p": [f"p_0000{NII}"], "q": [f"q{NII}"]}
    assert list(skipped) == [f"p{NII}"] and f"p_0000{NII}" in skipped[f"p{NII}"]
    two = tmp_path / "two"
    two.mkdir()
    folder(two, f"p_0000{NII}", f"p_0001{NII}", f"p{NII}", f"four{NII}")
    images, skipped = found(two, channels=2)
    assert images == {"four": [f"four{NII}"], "p": [f"p_0000{NII}", f"p_0001{NII}"]}
    assert list(skipped) == [f"p{NII}"]


def test_files_of_other_endings_are_named_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    names = (f"a_0000{NII}", "b_0000.nii", "c_0000.nrrd", "D_0000.NII.GZ", f"._a_0000{NII}", ".DS_Store", "notes.txt")
    images, skipped = found(folder(tmp_path, *names))
    assert list(images) == ["a"]
    assert set(skipped) == {"b_0000.nii", "c_0000.nrrd", "D_0000.NII.GZ", "notes.txt"}
    assert all(NII in reason for reason in skipped.values())


@pytest.mark.parametrize("names", [("a_0000", "a_0001"), ("a_0000", "a_0001", "a_0002", "b_0000")])
def test_channels_that_the_model_lacks_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = folder(tmp_path, *(f"{n}{NII}" for n in names))
    with pytest.raises(DatasetError, match=r"a has channels 0000, 0001.*the model takes 1"):
        find_images(source, 1, NII)
    assert [i.name for i in find_images(source / f"a_0001{NII}", 1, NII).images] == ["a_0001"]


def test_missing_and_additional_channels_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path, *(f"{n}{NII}" for n in ("a_0000", "a_0001", "b_0001", "c_0000", "c_0001", "c_0002")))
    with pytest.raises(DatasetError) as caught:
        find_images(source, 2, NII)
    assert [p.what.split()[0] for p in caught.value.problems] == ["b", "c"]


def test_one_channel_file_stands_for_its_image(tmp_path: Path) -> None:
    source = folder(tmp_path, f"a[1]_0000{NII}", f"a[1]_0001{NII}", f"a1_0000{NII}")
    images, _ = found(source / f"a[1]_0001{NII}", channels=2)
    assert images == {"a[1]": [f"a[1]_0000{NII}", f"a[1]_0001{NII}"]}


def test_one_picture_holds_three_channels(tmp_path: Path) -> None:
    source = folder(tmp_path, "a_0000.png", "b_0000.png")
    assert found(source, 3, ".png")[0] == {"a": ["a_0000.png"], "b": ["b_0000.png"]}
    assert found(source / "a_0000.png", 3, ".png")[0] == {"a": ["a_0000.png"]}
    with pytest.raises(DatasetError):
        find_images(folder(tmp_path, f"a_0000{NII}"), 3, NII)


def test_pictures_are_the_formats_of_nnunets_reader() -> None:
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    assert set(upstream.PICTURES) == set(NaturalImage2DIO.supported_file_endings)


@pytest.mark.parametrize("name", ["one.nii", "one.NII.GZ", "one.nrrd", "one.gz", "mask.png", "table.csv"])
def test_an_output_of_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"the model writes \.nii\.gz files") as caught:
        is_file_target(tmp_path / name, NII)
    assert name.split(".")[0] + NII in caught.value.problems[0].remedy


def test_files_and_folders_as_outputs(tmp_path: Path) -> None:
    assert is_file_target(tmp_path / f"seg{NII}", NII)
    assert not is_file_target(tmp_path / "segmentations", NII)
    assert not is_file_target(tmp_path / "results.v2", NII)
    (tmp_path / "folder.nii").mkdir()
    assert not is_file_target(tmp_path / "folder.nii", NII)


def test_names_that_are_not_text_are_skipped_with_the_reason(tmp_path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9" + NII.encode()))
    try:
        strange.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no names but UTF-8")
    images, skipped = found(folder(tmp_path, f"a_0000{NII}"))
    assert list(images) == ["a"] and "UTF-8" in skipped[strange.name]
    with pytest.raises(DatasetError, match="UTF-8"):
        find_images(strange, 1, NII)
