"""Runs that were trained on other data than those prepared now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.errors import RunError, RunLocked
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import read_manifest
from ppgs.runs.older import OlderRuns, begun_runs, is_trained_on, read_data, refuse_live, write_data
from ppgs.runs.prepared import FileState, Record, difference, write_record
from ppgs.runs.provenance import check_origin, origin_of
from tests.helpers.made_runs import made

DATASET = "Dataset001_A"


def record(**contents: str) -> Record:
    cases = {name: (FileState(1, 1, digest), FileState(1, 1, "label")) for name, digest in contents.items()}
    return Record(cases=cases, definition="d")  # type: ignore[arg-type]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "nnUNet_preprocessed" / DATASET
    folder.mkdir(parents=True)
    (folder / "p.json").write_text("{}")
    (folder / "dataset.json").write_text('{"numTraining": 3}')
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["c"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    write_record(folder, record(a="1", b="2", c="3"))
    return folder


def run_of(tmp_path: Path, name: str, **changes: object) -> RunFolder:
    run = RunFolder.place(tmp_path / "nnUNet_results", DATASET, name, "p", "3d_fullres", 0)
    return made(run, name, "stopped", **changes)


def test_only_the_cases_of_its_fold_make_a_run_older(prepared: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, "r", origin=origin_of(prepared, "p", 0))
    manifest = read_manifest(run)
    assert OlderRuns(prepared.parent)(manifest) is False
    write_record(prepared, record(a="1", b="2", c="other"))
    assert OlderRuns(prepared.parent)(manifest) is False
    write_record(prepared, record(a="1", b="other", c="3"))
    assert OlderRuns(prepared.parent)(manifest) is True
    write_record(prepared, record(a="1", b="2", c="3"))
    assert OlderRuns(prepared.parent)(manifest) is False


def test_other_label_values_make_a_run_older(prepared: Path, tmp_path: Path) -> None:
    manifest = read_manifest(run_of(tmp_path, "r", origin=origin_of(prepared, "p", 0)))
    write_record(prepared, record(a="1", b="2", c="3").model_copy(update={"definition": "other"}))
    assert OlderRuns(prepared.parent)(manifest) is True


def test_a_run_that_says_nothing_of_its_data_is_older_than_a_later_change(prepared: Path, tmp_path: Path) -> None:
    origin = {"plans": "x"}
    before = read_manifest(run_of(tmp_path, "r", origin=origin, created=100.0))
    after = read_manifest(run_of(tmp_path, "s", origin=origin, created=300.0))
    assert OlderRuns(prepared.parent)(before) is None
    write_record(prepared, record(a="1").model_copy(update={"changed": 200.0}))
    assert OlderRuns(prepared.parent)(before) is True
    assert OlderRuns(prepared.parent)(after) is None
    assert OlderRuns(tmp_path / "elsewhere")(before) is None


def test_a_resume_on_other_cases_is_refused_naming_them(prepared: Path) -> None:
    begun = origin_of(prepared, "p", 0)
    check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")
    write_record(prepared, record(a="1", b="other", c="3"))
    changes = difference({"a": "x", "b": "y"}, {"a": "x", "b": "z"})
    with pytest.raises(RunError, match=r"the run was trained on \(changed: b\)") as refused:
        check_origin(begun, origin_of(prepared, "p", 0), prepared, "p", changes)
    assert refused.value.exit_code == 4


def test_the_number_of_cases_or_a_description_in_dataset_json_is_no_reason_to_refuse(prepared: Path) -> None:
    begun = origin_of(prepared, "p", 0)
    (prepared / "dataset.json").write_text('{"numTraining": 4, "description": "x"}')
    check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")
    # A run of an older ppgs says no more of it than that it is another.
    begun.pop("definition")
    with pytest.raises(RunError, match="dataset"):
        check_origin(begun, origin_of(prepared, "p", 0), prepared, "p")


def test_a_live_run_is_named_and_others_do_not_count(prepared: Path, tmp_path: Path) -> None:
    results, origin = tmp_path / "nnUNet_results", origin_of(prepared, "p", 0)
    live, waiting = run_of(tmp_path, "live", origin=origin), run_of(tmp_path, "waiting")
    run_of(tmp_path, "ended", origin=origin)
    with Lock(live.lock), Lock(waiting.lock):
        with pytest.raises(RunLocked, match="'live' is training"):
            refuse_live(results, DATASET, None, "the data changed")
        refuse_live(results, DATASET, live.path, "the data changed")
        refuse_live(results, "Dataset002_B", None, "the data changed")
    assert {manifest.name for _, manifest in begun_runs(results, DATASET, live.path)} == {"ended"}


def test_models_of_nnunet_itself_count_as_trained(tmp_path: Path) -> None:
    fold = tmp_path / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    assert not is_trained_on(tmp_path, DATASET, None)
    (fold / "checkpoint_final.pth").write_bytes(b"")
    assert is_trained_on(tmp_path, DATASET, None)


def test_what_a_run_was_trained_on_is_read_as_written(tmp_path: Path) -> None:
    run = run_of(tmp_path, "r")
    assert read_data(run) is None
    write_data(run, {"b": "2", "a": "1"})
    assert read_data(run) == {"a": "1", "b": "2"}
    for damaged in ("", "[]", "3"):
        run.data.write_text(damaged)
        assert read_data(run) is None
