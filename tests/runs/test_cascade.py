"""Choice of the first-stage fold that segments each case of a cascade."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.errors import DamagedRun, NoSuchRun
from ppgs.runs.cascade import cases_of, first_stage_runs, read_splits
from ppgs.runs.folder import RunFolder
from tests.helpers.made_runs import made

SPLITS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]


def finish(model: Path, fold: int | str, status: str = "finished") -> RunFolder:
    run = made(RunFolder(model / f"fold_{fold}"), f"x-fold{fold}", status, configuration="3d_lowres", fold=fold)
    run.checkpoint_final.touch()
    return run


def test_every_case_by_the_fold_that_did_not_train_on_it(tmp_path: Path) -> None:
    zero, one = finish(tmp_path, 0), finish(tmp_path, 1)
    finish(tmp_path, "all")
    chosen = first_stage_runs(tmp_path, SPLITS, cases_of(SPLITS, 0), "ppgs train x")
    assert chosen == {"a": zero, "b": zero, "c": one, "d": one}


def test_fold_all_where_a_fold_is_missing_or_the_splits_leave_a_case_out(tmp_path: Path) -> None:
    zero, whole = finish(tmp_path, 0), finish(tmp_path, "all")
    chosen = first_stage_runs(tmp_path, SPLITS, ["a", "c", "e"], "ppgs train x")
    assert chosen == {"a": zero, "c": whole, "e": whole}


def test_folds_that_are_not_finished_are_named(tmp_path: Path) -> None:
    finish(tmp_path, 0, "validating")
    with pytest.raises(NoSuchRun, match=r"fold 0,1 of") as told:
        first_stage_runs(tmp_path, SPLITS, ["a", "c"], "ppgs train x")
    assert told.value.problems[0].remedy == "ppgs train x --fold 0,1"


def test_splits(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(SPLITS))
    assert read_splits(path) == SPLITS
    assert cases_of(SPLITS, "all") == ["a", "b", "c", "d"]
    for damaged in ("[", "[{}]", "3"):
        path.write_text(damaged)
        with pytest.raises(DamagedRun):
            read_splits(path)
