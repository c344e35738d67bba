"""Choice of the first-stage fold that segments each case of a cascade."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from ppgs.commands.train.plan import plan_run
from ppgs.errors import DamagedRun, NoSuchRun
from ppgs.runs.cascade import cases_of, first_stage_runs, read_splits, training_command
from ppgs.runs.folder import RunFolder
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
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


def test_fold_all_alone_trains_what_only_it_can_segment(tmp_path: Path) -> None:
    with pytest.raises(NoSuchRun) as caught:
        first_stage_runs(tmp_path, SPLITS, ["a", "no fold validates it"], "ppgs train x")
    assert caught.value.problems[0].remedy == "ppgs train x --fold all"


def test_the_command_for_the_first_stage_trains_the_run_that_is_looked_for(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "plans": "nnUNetResEncUNetLPlans",
        "seed": 3,
        "name": "a",
        "trainer": "nnUNetTrainerDiceLoss",
    }
    request = TrainingRequest(task="demo", schedule_name="constant", configuration="3d_cascade_fullres", **given)
    mine = plan_run(TrainingRequest.of(**given, task="demo", schedule="constant"), 0, Roots.under(tmp_path))[0]
    command = training_command(mine, request, "3d_lowres", request.name)
    words = shlex.split(command)[2:]
    asked = dict(zip([w.removeprefix("--") for w in words[1::2]], words[2::2], strict=True))
    assert Path(asked.pop("root")) == tmp_path
    theirs = plan_run(
        TrainingRequest.of(**{**asked, "seed": int(asked["seed"])}, task=words[0]), 0, Roots.under(tmp_path)
    )[0]
    assert theirs == mine.in_configuration("3d_lowres")


def test_a_command_can_be_copied_whatever_the_names(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "my data" / "nnUNet_results" / "Dataset004_A" / "T__p__c" / "fold_0")
    request = TrainingRequest(task="/my data/Task04_A", schedule_name="mine")
    words = shlex.split(training_command(run, request, "2d", None))
    assert words[2] == "/my data/Task04_A"
    # The file's path is not known any more.
    assert words[words.index("--schedule") + 1] == "FILE"
    assert words[words.index("--root") + 1] == str(tmp_path / "my data")
