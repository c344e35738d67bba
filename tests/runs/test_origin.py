from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.errors import RunError
from ppgs.runs.provenance import changed_versions, check_origin, origin_of


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    for name, content in (("p", {"x": 1, "y": 2}), ("dataset", {}), ("splits_final", folds)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_only_what_changes_the_training_is_a_change(prepared: Path) -> None:
    begun = origin_of(prepared, "p", 0)
    assert set(begun) == {"plans", "dataset", "splits"}
    (prepared / "p.json").write_text('{"y": 2,\n "x": 1}')
    (prepared / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")
    (prepared / "dataset_fingerprint.json").write_text("{}")
    check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")


@pytest.mark.parametrize("file", ["p.json", "dataset.json", "splits_final.json"])
def test_every_change_is_refused_by_name(prepared: Path, file: str) -> None:
    begun = origin_of(prepared, "p", 0)
    (prepared / file).write_text('[{"train": ["b"], "val": ["a"]}]' if "splits" in file else '{"x": 9}')
    with pytest.raises(RunError) as refused:
        check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")
    assert refused.value.exit_code == 4
    assert file in refused.value.problems[0].where


def test_other_versions_are_named_both() -> None:
    told = list(changed_versions({"torch": "2.6", "numpy": "2.1"}, {"torch": "2.7", "numpy": "2.1", "new": "1"}))
    assert told == ["torch is 2.7 now; the run was trained with 2.6 so far"]
