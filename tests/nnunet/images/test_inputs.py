"""Values of `-i`: folders and those below them, patterns and lists; paths of segmentations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.errors import BadInput, PpgsError
from ppgs.nnunet.images.find import Found
from ppgs.nnunet.images.inputs import find_inputs

NII = ".nii.gz"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two patients with images of equal names, a folder between them, and files that are no images."""
    for name in ("p1/ct_0000", "p1/deep/ct_0000", "p2/ct_0000", "p2/other_0000", "top", ".hidden/ct"):
        file = tmp_path / "scans" / f"{name}{NII}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "scans" / "p1" / "notes.txt").touch()
    (tmp_path / "scans" / "p2" / "round").symlink_to(tmp_path / "scans")
    return tmp_path / "scans"


def names(found: Found) -> list[str]:
    return [image.name for image in found.images]


def test_folders_below_keep_their_structure(scans: Path) -> None:
    assert names(find_inputs(scans, 1, NII)) == ["top"]
    found = find_inputs(scans, 1, NII, recursive=True)
    assert names(found) == ["p1/ct", "p1/deep/ct", "p2/ct", "p2/other", "top"]
    assert [one.file.name for one in found.skipped] == ["notes.txt"] and found.searched == scans
    (scans / "p1" / f"ct_0001{NII}").touch()
    with pytest.raises(PpgsError, match="ct has channels") as caught:
        find_inputs(scans, 1, NII, recursive=True)
    assert caught.value.problems[0].where == str(scans / "p1")


def test_a_folder_without_images_mentions_the_folders_below(scans: Path) -> None:
    (scans / f"top{NII}").unlink()
    with pytest.raises(PpgsError) as caught:
        find_inputs(scans, 1, NII)
    assert "--recursive" in caught.value.problems[0].remedy


def test_patterns(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(find_inputs(scans / "*" / "ct*", 1, NII)) == ["p1/ct", "p2/ct"]
    assert names(find_inputs(scans / "p[12]", 1, NII)) == ["p1/ct", "p2/ct", "p2/other"]
    deep = find_inputs(scans / "p1" / "**" / f"*{NII}", 1, NII)
    assert names(deep) == ["ct", "deep/ct"] and deep.searched == scans / "p1"
    monkeypatch.chdir(scans)
    assert names(find_inputs(Path(f"*{NII}"), 1, NII)) == ["top"]
    for pattern, problem in (("nothing*", "no file"), ("p1/*.txt", "no .nii.gz images"), ("none", "no such")):
        with pytest.raises(PpgsError, match=problem):
            find_inputs(Path(pattern), 1, NII)
    # What exists is no pattern, whatever its name.
    (scans / "odd[1]").mkdir()
    (scans / "odd[1]" / f"a{NII}").touch()
    assert names(find_inputs(Path("odd[1]"), 1, NII)) == ["a"]


def test_a_pattern_of_one_channel_finds_the_others(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0000", "b_0001", "a_2021_0000", "a_2021_0001"):
        (tmp_path / f"{name}{NII}").touch()
    found = find_inputs(tmp_path / f"a*_0000{NII}", 2, NII)
    assert [(i.name, len(i.files)) for i in found.images] == [("a", 2), ("a_2021", 2)]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_pattern_takes_the_same_files_as_the_folder(tmp_path: Path, channels: int) -> None:
    for name in ("a", *(f"a_{channel:04d}" for channel in range(channels)), "b"):
        (tmp_path / f"{name}{NII}").touch()
    found = find_inputs(tmp_path / f"*{NII}", channels, NII)
    assert found == find_inputs(tmp_path, channels, NII)
    assert names(found) == ["a", "b"] and [one.file.name for one in found.skipped] == [f"a{NII}"]
    # Without the numbered file among the matches, the plain one is meant.
    assert find_inputs(tmp_path / f"[a].{NII[1:]}", channels, NII).images[0].files == (tmp_path / f"a{NII}",)


def listed(folder: Path, text: str, name: str = "list.csv", channels: int = 1) -> list[tuple[str, list[str]]]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    found = find_inputs(path, channels, NII)
    return [(image.name, [str(f.relative_to(folder)) for f in image.files]) for image in found.images]


def test_lists(scans: Path) -> None:
    one = f"p1/ct_0000{NII}"
    two = f"p2/ct_0000{NII}"
    expected = [("ct", [one]), ("sub/second", [two])]
    assert listed(scans, f"image,output\n{one},\n{two},sub/second\n") == expected
    assert listed(scans, f"\ufeffimage;output\r\n{one};\r\n\r\n{two};sub/second{NII}\r\n") == expected
    rows = [{"image": one}, {"image": [two], "output": "sub/second"}]
    assert listed(scans, json.dumps(rows), "list.json") == expected
    both = f"image_0001,image_0000,output\n{one},{two},x\n"
    assert listed(scans, both, channels=2) == [("x", [two, one])]
    assert listed(scans, json.dumps([{"image": [two, one], "output": "x"}]), "b.json", 2) == [("x", [two, one])]
    assert listed(scans, f"image,output\n{scans / one},\n") == [("ct", [one])]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image\n", "no images"),
        ("imge\nx\n", "no column 'imge'"),
        ("image\nmissing.nii.gz\n", "no such file"),
        ("image\np1/notes.txt\n", r"reads \.nii\.gz"),
        ("image,output\n,x\n", "no image"),
        ("image,image_0000\ntop.nii.gz,top.nii.gz\n", "both"),
        ("image_0001\ntop.nii.gz\n", "channels 0001"),
        ("image\np1/ct_0000.nii.gz\np2/ct_0000.nii.gz\n", "'ct' is the output of line 2 too"),
        ("image,output\ntop.nii.gz,../x\n", "no name in the output"),
        ("image,output\ntop.nii.gz,/x\n", "no name in the output"),
        ("image,output\ntop.nii.gz,x.nrrd\n", r"writes \.nii\.gz"),
        ("image\ntop.nii.gz,one,two\n", "more values"),
    ],
)
def test_what_is_wrong_in_a_list(scans: Path, text: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        listed(scans, text)
    assert caught.value.exit_code == 2 and all(p.where for p in caught.value.problems)


def test_json_that_is_no_list_and_all_problems_together(scans: Path) -> None:
    for text in ("{}", "[1]", "{"):
        with pytest.raises(BadInput):
            listed(scans, text, "list.json")
    with pytest.raises(BadInput) as caught:
        listed(scans, "image\na.nii.gz\nb.nii.gz\n")
    assert len(caught.value.problems) == 2
