"""Matching of images and labels by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.own_data.formats import ending_of, stored_ending
from ppgs.own_data.listing import File, list_files
from ppgs.own_data.matching import Matched, match


def files(folder: str, names: Sequence[str]) -> list[File]:
    return [File(Path(folder, f"{name}.nii.gz"), name, ".nii.gz") for name in names]


def matched(images: str | Sequence[str], labels: str | Sequence[str]) -> Matched:
    images = images.split() if isinstance(images, str) else images
    labels = labels.split() if isinstance(labels, str) else labels
    return match(files("images", images), files("labels", labels), "images", "labels")


def problems(found: Matched) -> str:
    return "\n".join(f"{p.what} | {p.where} | {p.remedy}" for p in found.problems)


def pairs(found: Matched) -> dict[str, tuple[str, ...]]:
    return {case.name: (*(f.name for f in case.images), case.label.name) for case in found.cases}


@pytest.mark.parametrize(
    ("images", "labels", "channels", "cases"),
    [
        ("a b", "a b", [""], ["a", "b"]),
        ("scan_0001 scan_0002", "scan_0001 scan_0002", [""], ["scan_0001", "scan_0002"]),
        ("scan_0001_0000 scan_0002_0000", "scan_0001 scan_0002", ["0000"], ["scan_0001", "scan_0002"]),
        ("a_0000 a_0001 b_0000 b_0001", "a b", ["0000", "0001"], ["a", "b"]),
        ("p1_t1 p1_t2 p10_t1 p10_t2", "p1 p10", ["t1", "t2"], ["p1", "p10"]),
        ("B_1_t1 B_1_t1ce B_2_t1 B_2_t1ce", "B_1_seg B_2_seg", ["t1", "t1ce"], ["B_1", "B_2"]),
        ("volume-0 volume-1", "segmentation-0 segmentation-1", [""], ["0", "1"]),
        ("img001 img002", "mask001 mask002", [""], ["001", "002"]),
        ("Case-1 Case-2", "case_1_label case_2_label", [""], ["case_1", "case_2"]),
        ("a_x.y a_z", "a_x.y.seg a_z.seg", [""], ["a_x.y", "a_z"]),
        ("one", "one-mask", [""], ["one"]),
        ("image_7", "label_7", [""], ["7"]),
        ("a_2 a_10 b_2 b_10", "a b", ["2", "10"], ["a", "b"]),
    ],
)
def test_names_that_match(images: str, labels: str, channels: list[str], cases: list[str]) -> None:
    found = matched(images, labels)
    assert not found.problems
    assert found.channels == channels
    assert sorted(case.name for case in found.cases) == sorted(cases)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ("a b c", "a b", "no label belongs to this image | images/c.nii.gz"),
        ("a b", "a b c", "no image belongs to this label | labels/c.nii.gz"),
        ("pat_01 pat_02", "pat_01 pat_2", "the nearest label is pat_2"),
        ("a_t1 a_t2 b_t1 c_t1 c_t2", "a b c", "b has no image of channel t2; it has b_t1.nii.gz"),
        ("a b c a_2", "a b c", "a (label a.nii.gz) has an image that most cases do not have: '2'"),
        (["a", "A", "b"], ["a", "b"], "2 files for a (label a.nii.gz): a.nii.gz, A.nii.gz"),
        (["a", "b"], ["a", "b", "B"], "2 labels of one case, b: b.nii.gz, B.nii.gz"),
        ("a a_seg b b_seg", "a b", "files that look like labels are among the images: a_seg.nii.gz, b_seg.nii.gz"),
        ("x", "y", "no label belongs to this image"),
    ],
)
def test_names_that_do_not(images: str, labels: str, expected: str) -> None:
    assert expected in problems(matched(images, labels))


def test_all_that_is_wrong_is_reported_and_the_rest_is_matched() -> None:
    found = matched("a b x", "a b y")
    assert set(pairs(found)) == {"a", "b"}
    assert len(found.problems) == 2


WORDS = st.text("abcxyz", min_size=1, max_size=4)
AFFIXES = st.sampled_from(["", "_seg", "-mask", ".label", "_manual_final"])


@given(
    names=st.lists(st.tuples(WORDS, st.integers(0, 99)), min_size=2, max_size=8, unique=True),
    channels=st.lists(st.sampled_from(["t1", "t2", "flair", "0000", "0001"]), min_size=1, max_size=4, unique=True),
    suffix=AFFIXES,
    prefix=st.sampled_from(["", "lbl_", "SEG-"]),
)
def test_what_was_named_by_a_rule_is_found(
    names: list[tuple[str, int]], channels: list[str], suffix: str, prefix: str
) -> None:
    cases = [f"{word}_n{number}q" for word, number in names]
    images = [f"{case}_{channel}" for case in cases for channel in channels]
    found = matched(images, [f"{prefix}{case}{suffix}" for case in cases])
    assert not found.problems
    assert len(found.cases) == len(cases)
    assert sorted(found.channels) == sorted(channels)
    for images_and_label in pairs(found).values():
        *own, label = images_and_label
        case = label.removeprefix(prefix).removesuffix(suffix) if suffix else label.removeprefix(prefix)
        assert own == [f"{case}_{channel}" for channel in found.channels]


ANY = st.lists(st.text("aB1_ -.é", min_size=1, max_size=6), min_size=1, max_size=8, unique=True)


@given(images=ANY, labels=ANY)
def test_no_file_is_left_out_without_a_word(images: list[str], labels: list[str]) -> None:
    found = matched(images, labels)
    used = [file.path for case in found.cases for file in (*case.images, case.label)]
    assert len(used) == len(set(used))
    told = problems(found)
    for file in files("labels", labels):
        assert file.path in used or file.path.name in told
    if not found.problems:
        assert len(used) == len(images) + len(labels)
        # The order of the files does not matter.
        assert pairs(matched(images[::-1], labels[::-1])) == pairs(found)


class TestListing:
    def make(self, folder: Path, *names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        return folder

    def test_flat_hidden_and_foreign_files(self, tmp_path: Path) -> None:
        found = list_files(self.make(tmp_path, "a.nii.gz", ".b.nii.gz", "Thumbs.db", "notes.txt", "c.raw"), "images")
        assert [file.name for file in found.files] == ["a"]
        assert found.passed == ["notes.txt"]
        assert not found.problems

    def test_one_folder_per_case(self, tmp_path: Path) -> None:
        found = list_files(self.make(tmp_path, "p1/t1.nii", "p1/p1_t2.nii", "p2/t1.nii", "p2/P2-t2.nii"), "images")
        assert sorted(file.name for file in found.files) == ["p1_t1", "p1_t2", "p2-t2", "p2_t1"]

    def test_folders_per_case_match_flat_labels_and_folders(self, tmp_path: Path) -> None:
        images = self.make(tmp_path / "i", "case_1/imaging.nii.gz", "case_2/imaging.nii.gz")
        flat = self.make(tmp_path / "l", "case_1.nii.gz", "case_2.nii.gz")
        nested = self.make(tmp_path / "n", "case_1/segmentation.nii.gz", "case_2/segmentation.nii.gz")
        for labels in (flat, nested):
            found = match(list_files(images, "").files, list_files(labels, "").files, images, labels)
            assert not found.problems
            assert [case.name for case in found.cases] == ["case_1", "case_2"]

    def test_upper_case_endings(self, tmp_path: Path) -> None:
        found = list_files(self.make(tmp_path, "a.PNG", "b.NII.GZ", "c.Tif"), "images")
        assert [(file.name, file.ending) for file in found.files] == [("a", ".png"), ("b", ".nii.gz"), ("c", ".tif")]

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["a.jpg"], "JPEG is lossy"),
            (["a.npy"], "nnU-Net does not read this format: a.npy"),
            (["a/1.dcm", "a/2.dcm"], "dcm2niix"),
            (["a/b/c.nii.gz"], "two folders deep"),
            (["a.nii.gz", "b/c.nii.gz"], "both in the folder and in folders inside it: b"),
            (["notes.txt"], "there are no images in this folder; it contains notes.txt"),
            ([], "there are no images in this folder"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, names: list[str], expected: str) -> None:
        found = list_files(self.make(tmp_path, *names), "images")
        assert expected in "\n".join(f"{p.what} | {p.remedy}" for p in found.problems)

    def test_dicom_without_an_ending(self, tmp_path: Path) -> None:
        (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(10))
        assert "DICOM" in list_files(tmp_path, "images").problems[0].what

    def test_links_that_lead_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").symlink_to(tmp_path / "gone")
        assert "lead nowhere: a.nii.gz" in list_files(tmp_path, "images").problems[0].what


def test_endings() -> None:
    assert ending_of("a.b.NII.gz") == ".nii.gz"
    assert ending_of("a.seg.nrrd") == ".nrrd"
    assert ending_of("a") == ""
    assert stored_ending([".nii", ".nii"]) == ".nii"
    assert stored_ending([".nii", ".nii.gz"]) == ".nii.gz"
    assert stored_ending([".mhd"]) == ".mha"
