"""Mistakes in `dataset.json`: each is named by its key, with the line as it should be."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ppgs.doctor.description import check_description, read_description

GOOD: dict[str, Any] = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "organ": 1, "core": 2},
    "numTraining": 6,
    "file_ending": ".nii.gz",
}
LABELS = '"labels": {"background": 0, "organ": 1, "core": 2}'
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def errors(content: dict[str, Any], folder: Path, *, decathlon: bool = False) -> list[Any]:
    kept = {key: value for key, value in content.items() if value is not None}
    found = check_description(kept, folder, decathlon=decathlon)
    return [f for f in found.findings if f.level == "error"]


@pytest.mark.parametrize(
    ("changes", "said", "line"),
    [
        ({"labels": {"0": "background", "1": "organ", "2": "core"}}, "labels", LABELS),
        ({"labels": ["background", "organ", "core"]}, "labels", LABELS),
        ({"labels": {"background": "0", "organ": "1", "core": "2"}}, "labels.background", LABELS),
        ({"labels": {"background": 0, "organ": 1.0, "core": 2}}, "labels.organ", LABELS),
        ({"labels": {"background": 0, "organ": True, "core": 2}}, "labels.organ", LABELS[:30]),
        ({"labels": {"background": 0, "organ": -1}}, "labels.organ", '"organ": 1'),
        ({"labels": {"background": 0, "organ": None}}, "labels.organ", '"organ": 1'),
        ({"labels": {"background": 0, "organ": []}}, "'organ' has no value", '"organ": 1'),
        ({"labels": {"organ": 1, "core": 2}}, "'background'", LABELS),
        ({"labels": {"Background": 0, "organ": 1, "core": 2}}, "'background'", LABELS),
        ({"labels": {"unlabeled": 0, "organ": 1, "core": 2}}, "'background'", LABELS),
        ({"labels": {"background": [0], "organ": 1, "core": 2}}, "'background'", LABELS),
        ({"labels": {"background": 1, "organ": 0, "core": 2}}, "'background'", LABELS),
        ({"labels": {"background": False, "organ": True, "core": "2"}}, "labels.organ", LABELS),
        ({"labels": {"background": {"value": 0}, "organ": {"value": 1}}}, "labels.organ", '"organ": 1'),
        ({"labels": {"background": 0, "whole": "1,2", "core": [2]}}, "labels.whole", '"whole": [1, 2], "core": [2]'),
        ({"labels": {"background": 0}}, "no foreground", '"organ": 1'),
        ({"labels": {}}, "'background'", '"labels": {"background": 0'),
        ({"labels": None}, "missing key 'labels'", '"labels": {"background": 0'),
        ({"labels": {"background": 0, "organ": 1, "core": 3}}, "2 missing", LABELS),
        ({"labels": {"background": 0, "organ": 2, "core": 3}}, "1 missing", LABELS),
        ({"labels": {"background": 0, "organ": 1, "core": 1}}, "same value 1", "its own value"),
        ({"labels": {"background": 0, "organ": 2, "ignore": 1}}, "ignore label", "renumber"),
        ({"labels": {"background": 0, "organ": 1, "ignore": [2]}}, "'ignore'", '"ignore": 2'),
        ({"channel_names": {"MR": 0}}, "channel_names", '"channel_names": {"0": "MR"}'),
        ({"channel_names": {"T1": "0", "T2": "1"}}, "channel_names", '"channel_names": {"0": "T1", "1": "T2"}'),
        ({"channel_names": ["T1", "T2"]}, "channel_names", '"channel_names": {"0": "T1", "1": "T2"}'),
        ({"channel_names": {"1": "T1", "2": "T2"}}, "from 0 on", '"channel_names": {"0": "T1", "1": "T2"}'),
        ({"channel_names": {"0": 7}}, "channel_names.0", '"channel_names": {"0": "7"}'),
        ({"channel_names": "MR"}, "channel_names", '"channel_names": {"0": "MR"}'),
        ({"channel_names": {}}, "no channels", '"channel_names": {"0": "CT"}'),
        ({"channel_names": None}, "missing key 'channel_names'", '"channel_names": {"0": "CT"}'),
        ({"file_ending": None}, "missing key 'file_ending'", '"file_ending": ".nii.gz"'),
        ({"file_ending": "nii.gz"}, "begin with a dot", '"file_ending": ".nii.gz"'),
        ({"file_ending": "*.nii.gz"}, "begin with a dot", '"file_ending": ".nii.gz"'),
        ({"file_ending": 3}, "file_ending", '"file_ending": ".nii.gz"'),
        ({"file_ending": ".jpg"}, "reads no .jpg", ".png"),
        ({"file_ending": "./x"}, "cannot end a file", ""),
        ({"labels": REGIONS}, "regions_class_order is missing", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": [1]}, "has 1 entries", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": [2, 1]}, "writes 1 for 'core'", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": [2, 2]}, "written as 2", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": [1, 3]}, "writes 3 for 'core'", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": "1,2"}, "regions_class_order", '"regions_class_order": [1, 2]'),
        ({"labels": REGIONS, "regions_class_order": ["1", "2"]}, "regions_class_order", "[1, 2]"),
        (
            {"labels": {"background": 0, "core": [2], "whole": [1, 2]}, "regions_class_order": [2, 1]},
            "'core' could never be predicted",
            '"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]',
        ),
        ({"dataset": ["a"]}, "dataset", '"dataset": {"case_01": {"images"'),
        ({"dataset": {"a": {"image": "x", "label": "y"}}}, "dataset.a.images", '"images": ["imagesTr/'),
        ({"dataset": {"a": {"images": "x", "label": "y"}}}, "dataset.a.images: expected a list", '"images": ["'),
        ({"dataset": {"a": {"images": [], "label": "y"}}}, "dataset.a.images", '"images": ["'),
        ({"overwrite_image_reader_writer": None, "image_reader": 1, "labels": 7}, "labels", LABELS[:25]),
        ({"overwrite_image_reader_writer": "os.system"}, "overwrite_image_reader_writer", "nnU-Net"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], said: str, line: str) -> None:
    found = errors(GOOD | changes, tmp_path)
    assert found
    assert any(said in f.what and line in f.remedy for f in found), found
    assert all(f.where.startswith(str(tmp_path / "dataset.json")) for f in found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"numTraining": None},
        {"numTraining": "six", "name": "x", "licence": {}},
        {"channel_names": None, "modality": {"0": "MR"}},
        {"labels": {"background": 0, "organ": 1, "core": 2, "ignore": 3}},
        {"labels": {"background": 0, "organ": [1], "core": [2]}},
        {"labels": REGIONS, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "a": [1, 2, 3], "b": [2, 3], "c": 3}, "regions_class_order": [1, 2, 3]},
        {"labels": {"background": 0, "all": [1, 2], "a": [1], "b": [2]}, "regions_class_order": [1, 1, 2]},
        {"overwrite_image_reader_writer": "None"},
        {"overwrite_image_reader_writer": "NibabelIOWithReorient"},
    ],
)
def test_what_nnunet_can_train_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert errors(GOOD | changes, tmp_path) == []


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ('// labels of 2021\n{"labels": 1}', "remove the comment in line 1"),
        ('{"labels": 1, # organs\n"a": 2}', "remove the comment in line 1"),
        ('{"labels": 1,\n}', "remove the comma before '}' in line 2"),
        ("{'labels': 1}", "write double quotes"),
        ('{"labels": 1}{}', "remove what follows"),
        ('{"labels": 1', "comma or colon is missing"),
        ('{"labels": "or', "is the file whole?"),
        ("", "copy it from a backup"),
    ],
)
def test_broken_json_is_explained(tmp_path: Path, content: str, remedy: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    (finding,) = read_description(tmp_path, decathlon=False).findings
    assert remedy in finding.remedy


def test_the_ending_that_the_images_have_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    for ending in (".", "", ".gz", ".nii.gz ", ".jpg", "nii.gz", "*.nii.gz"):
        (finding,) = errors(GOOD | {"file_ending": ending}, tmp_path)
        assert finding.remedy == 'write: "file_ending": ".nii.gz"'


def test_what_is_suggested_for_labels_is_right(tmp_path: Path) -> None:
    """With the suggested line in place, the labels have no fault left, whatever the original was."""
    values: list[Any] = [0, 1, 2, "1", "1,2", 1.0, True, None, [], [1], ["1"], -1, float("nan"), {"value": 1}]
    for first, second in itertools.product(values, values):
        for names in (("background", "organ"), ("organ", "ignore"), ("Background", "core")):
            labels = dict(zip(names, (first, second), strict=True))
            for finding in errors(GOOD | {"labels": labels}, tmp_path):
                if finding.remedy.startswith("write: ") and finding.check == "labels":
                    content = json.loads("{" + finding.remedy.removeprefix("write: ") + "}")
                    left = [f for f in errors(GOOD | content, tmp_path) if f.remedy == finding.remedy]
                    assert not left, (labels, left)


def test_all_mistakes_are_named_together(tmp_path: Path) -> None:
    found = errors({"labels": {"organ": 1}, "channel_names": ["MR"], "file_ending": "nii"}, tmp_path)
    assert {f.where.rsplit(" ", 1)[1] for f in found} == {"labels", "channel_names", "file_ending"}


def test_a_decathlons_labels_are_named_by_value(tmp_path: Path) -> None:
    good = {"modality": {"0": "CT"}, "labels": {"0": "Background", "1": "a"}}
    assert errors(good, tmp_path, decathlon=True) == []
    (finding,) = errors({**good, "labels": {"background": 0, "a": 1}}, tmp_path, decathlon=True)
    assert '"labels": {"0": "background", "1": "a"}' in finding.remedy
    (finding,) = errors({**good, "labels": {"0": "background", "2": "a"}}, tmp_path, decathlon=True)
    assert "1 missing" in finding.what and '"labels": {"0": "background", "1": "a"}' in finding.remedy
    assert errors({"labels": good["labels"]}, tmp_path, decathlon=True)[0].what == "missing key 'modality'"
    (finding,) = errors({**good, "labels": {"0": "background", "1": "a", "2": "a"}}, tmp_path, decathlon=True)
    assert "'a' names two values" in finding.what
    (finding,) = errors({**good, "labels": {"0.0": "background", "1.0": "a"}}, tmp_path, decathlon=True)
    assert '"labels": {"0": "background", "1": "a"}' in finding.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"null", "found null"),
        (b'{"a": 1,}', "not readable as JSON"),
        (b"[]", "expected a JSON object, found a list"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b'{"labels": {"background": 0, "a": 1, "a": 2}}', "'a' is there twice"),
        (b"[" * 100_000, "not readable as JSON"),
        (json.dumps(GOOD).encode(), ""),
    ],
)
def test_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    found = [f for f in read_description(tmp_path, decathlon=False).findings if f.level == "error"]
    assert any(said in f.what for f in found) if said else not found


def test_no_file(tmp_path: Path) -> None:
    (finding,) = read_description(tmp_path, decathlon=False).findings
    assert finding.what == "dataset.json is not there"
    (tmp_path / "dataset.json").mkdir()
    (finding,) = read_description(tmp_path, decathlon=False).findings
    assert finding.what == "dataset.json is a folder"
