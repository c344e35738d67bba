"""Faults of `splits_final.json` in raw and prepared datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.datasets import dataset
from tests.helpers.findings import check, of_level


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
