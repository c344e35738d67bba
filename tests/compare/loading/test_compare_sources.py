"""RUN arguments, names, baselines, and valid and damaged summaries."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from ppgs.compare.loading.sources import choose_baseline, find_places, short_labels
from ppgs.compare.loading.summaries import DamagedSummary, case_name, read_summary
from ppgs.compare.reporting.formats import task_label
from ppgs.errors import BadInput, NoSuchRun
from ppgs.runs.manifest import read_manifest, write_manifest
from tests.helpers import result_folders as rf


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "nnUNet_results"
    folds = {str(k): rf.random_cases(k) for k in range(2)}
    for task in (rf.TASK, "Dataset778_Second"):
        for model in (rf.PLAIN, rf.OTHER):
            rf.write_model(root, model, folds, task=task)
    return root


def test_every_level_of_nnunets_folders(results: Path) -> None:
    model = results / rf.TASK / rf.PLAIN

    def found(path: Path) -> list[tuple[str | None, str, tuple[str, ...]]]:
        return [(p.task, p.training, tuple(n for n, _ in p.folds)) for p in find_places([str(path)], results)]

    one = (rf.TASK, rf.PLAIN, ("0", "1"))
    assert found(model) == [one]
    assert found(model / "fold_1") == [(rf.TASK, rf.PLAIN, ("1",))]
    assert found(model / "fold_1" / "validation") == [(rf.TASK, rf.PLAIN, ("1",))]
    assert found(results / rf.TASK) == [one, (rf.TASK, rf.OTHER, ("0", "1"))]
    assert len(found(results)) == len(found(results.parent)) == 4


def test_images_of_folds_are_no_predictions(tmp_path: Path) -> None:
    validation = tmp_path / "old" / "results" / rf.TASK / rf.PLAIN / "fold_0" / "validation"
    rf.write_image(validation / "a.nii.gz", np.zeros((2, 4, 4), np.uint8), (1, 1, 1))
    rf.write_image(tmp_path / "nnUNet_raw" / rf.TASK / "imagesTr" / "a_0000.nii.gz", np.zeros((2, 4, 4)), (1, 1, 1))
    for folder in (tmp_path, tmp_path / "nnUNet_raw" / rf.TASK):
        with pytest.raises(BadInput, match="this folder contains no results"):
            find_places([str(folder)], tmp_path)
    rf.write_image(tmp_path / "patient1" / "a.nii.gz", np.zeros((2, 4, 4), np.uint8), (1, 1, 1))
    assert find_places([str(tmp_path)], tmp_path)[0].is_predictions


def test_datasets_with_dots_and_large_numbers(tmp_path: Path) -> None:
    tasks = ["Dataset004_Hip.v1", "Dataset1014_Foo", "Dataset777_Hip.v2"]
    for task in tasks:
        rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, task=task)
    assert [place.task for place in find_places([str(tmp_path)], tmp_path)] == tasks
    assert [task_label(task) for task in tasks] == ["Hip.v1", "Foo", "Hip.v2"]
    models = [tmp_path / task / rf.PLAIN for task in tasks]
    with pytest.raises(BadInput, match="a second run of the same task is missing"):
        rf.compared(tmp_path, models[0], models[2])


def test_only_keeps_trainings_by_a_part_of_their_name(results: Path) -> None:
    places = find_places([str(results)], results, ["nnUNetRes*"])
    assert {p.training for p in places} == {rf.OTHER}
    with pytest.raises(BadInput) as error:
        find_places([str(results)], results, ["nnUNetPlanz"])
    assert "nnUNetPlanz" in str(error.value)


def test_a_fold_all_never_mixes_with_cross_validation(results: Path) -> None:
    model = results / rf.TASK / rf.PLAIN
    rf.write_summary(model / "fold_all", rf.random_cases(9))
    assert [n for n, _ in find_places([str(model)], results)[0].folds] == ["0", "1"]
    alone = rf.write_model(results, "nnUNetTrainer__nnUNetPlans__2d", {"all": rf.random_cases(1)})
    assert [n for n, _ in find_places([str(alone)], results)[0].folds] == ["all"]


def test_our_run_by_name_and_folder(tmp_path: Path) -> None:
    run = rf.write_own_run(tmp_path, "efficiency", rf.random_cases(0))
    for given in ("efficiency-fold0", str(run.path), str(run.own)):
        (place,) = find_places([given], tmp_path)
        assert (place.name, place.task, place.path) == ("efficiency-fold0", rf.TASK, run.path)


def test_unknown_names_and_empty_folders_are_all_named(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoSuchRun) as error:
        find_places(["nothing-here", str(tmp_path / "empty")], results)
    assert any("nothing-here" in p.what for p in error.value.problems)
    assert any(p.where.endswith("empty") for p in error.value.problems)


def test_same_results_twice_are_refused(results: Path) -> None:
    model = str(results / rf.TASK / rf.PLAIN)
    with pytest.raises(BadInput, match="twice"):
        find_places([model, model + "/"], results)


def test_names_tell_apart_what_lies_under_different_roots(tmp_path: Path) -> None:
    for root in ("old", "new"):
        rf.write_model(tmp_path / root, rf.PLAIN, {"0": rf.random_cases(0)})
    places = find_places([str(tmp_path / "old"), str(tmp_path / "new")], tmp_path)
    assert [p.training for p in places] == [f"old/{rf.PLAIN}", f"new/{rf.PLAIN}"]


def test_as_much_of_the_path_as_tells_three_apart(tmp_path: Path) -> None:
    roots = [tmp_path / place for place in ("a/f0", "b/f0", "b/f1")]
    for seed, root in enumerate(roots):
        rf.write_model(root, rf.PLAIN, {"0": rf.random_cases(seed)})
        rf.write_model(root, rf.OTHER, {"0": rf.random_cases(seed)}) if seed < 2 else None
    places = find_places(list(map(str, roots)), tmp_path)
    assert sorted(p.training for p in places) == sorted(
        [f"a/f0/{rf.PLAIN}", f"b/f0/{rf.PLAIN}", f"b/f1/{rf.PLAIN}", f"a/{rf.OTHER}", f"b/{rf.OTHER}"]
    )


def test_names_tell_folds_of_one_model_apart(results: Path) -> None:
    model = results / rf.TASK / rf.PLAIN
    places = find_places([str(model / "fold_0"), str(model / "fold_1")], results)
    assert [p.name for p in places] == [f"{rf.PLAIN}/fold_0", f"{rf.PLAIN}/fold_1"]


def test_baseline_is_the_first_or_the_named(results: Path) -> None:
    places = find_places([str(results)], results)
    assert choose_baseline(None, places) == rf.PLAIN
    for name in (rf.OTHER, "nnUNetResEncUNetMPlans", "nnUNetRes*", str(results / rf.TASK / rf.OTHER)):
        assert choose_baseline(name, places) == rf.OTHER
    with pytest.raises(BadInput, match="several"):
        choose_baseline("3d_fullres", places)
    with pytest.raises(BadInput, match="no training"):
        choose_baseline("nnUNetResEncUNetXPlans", places)


def test_baseline_is_named_as_its_run_is_given(tmp_path: Path) -> None:
    for schedule in ("constant", "efficiency"):
        one = rf.write_own_run(tmp_path, schedule, rf.random_cases(0))
        manifest = read_manifest(one)
        manifest.name = f"demo-{schedule}-fold0"
        write_manifest(one, manifest)
    places = find_places(["demo-efficiency", "demo-constant"], tmp_path)
    for name in ("demo-constant", "demo-efficiency"):
        assert choose_baseline(name, places).startswith(f"nnUNetTrainerPPGS_{name.removeprefix('demo-')}__")


def test_short_labels_keep_what_differs() -> None:
    assert short_labels([rf.PLAIN, rf.OTHER]) == {rf.PLAIN: "nnUNetPlans", rf.OTHER: "nnUNetResEncUNetMPlans"}
    ours = [f"nnUNetTrainerPPGS_{s}__nnUNetPlans__3d_fullres" for s in ("constant", "efficiency_s1")]
    assert list(short_labels(ours).values()) == ["constant", "efficiency_s1"]
    assert short_labels(["a", "b__c"]) == {"a": "a", "b__c": "b__c"}


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("validation/BRATS_010.nii.gz", "BRATS_010"),
        (r"C:\data\liver_1.nii.gz", "liver_1"),
        ("1.2.840.113.nii.gz", "1.2.840.113"),
        ("cell.png", "cell"),
        ("a.NRRD", "a"),
    ],
)
def test_case_names(file: str, case: str) -> None:
    assert case_name(file) == case


def test_summary_is_read_with_regions_and_nan(tmp_path: Path) -> None:
    path = rf.write_summary(tmp_path, {"a": {"(1, 2, 3)": 0.5, "(2, 3)": math.nan}, "b": {"(1, 2, 3)": 1, "(2, 3)": 0}})
    first, second = read_summary(path, "")
    assert first.dice["(1, 2, 3)"] == 0.5
    assert math.isnan(first.dice["(2, 3)"])
    assert second.dice == {"(1, 2, 3)": 1.0, "(2, 3)": 0.0}


def _broken(path: Path, how: str) -> None:
    raw = json.loads(path.read_text())
    entries = raw["metric_per_case"]
    if how == "half-written":
        path.write_text(path.read_text()[:-40])
        return
    if how == "empty":
        path.write_text("")
        return
    if how == "metric_per_case":
        del raw["metric_per_case"]
    elif how == "Dice":
        del entries[1]["metrics"]["1"]["Dice"]
    elif how == "1.7":
        entries[1]["metrics"]["1"]["Dice"] = 1.7
    elif how == "expected a number":
        entries[1]["metrics"]["1"]["Dice"] = "high"
    elif how == "classes":
        del entries[1]["metrics"]["2"]
    elif how == "twice":
        entries[1]["prediction_file"] = entries[0]["prediction_file"]
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "how", ["half-written", "empty", "metric_per_case", "Dice", "1.7", "expected a number", "classes", "twice"]
)
def test_damaged_summaries_are_refused_and_named(tmp_path: Path, how: str) -> None:
    path = rf.write_summary(tmp_path, rf.random_cases(0))
    _broken(path, how)
    with pytest.raises(DamagedSummary) as error:
        read_summary(path, "validate again")
    (problem,) = error.value.problems
    assert problem.where == str(path)
    assert ("damaged" if how == "empty" else how) in problem.what
    assert problem.remedy == "validate again"


def test_relative_paths_have_the_names_of_the_folders(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = next(results.glob("*/*/fold_0"))
    monkeypatch.chdir(fold)
    (place,) = find_places([".."], results)
    assert (place.training, place.task) == (fold.parent.name, fold.parent.parent.name)
    (place,) = find_places(["../fold_0"], results)
    assert place.training == fold.parent.name
    # `..` leads to the parent of what a link leads to.
    link = results.parent / "link"
    link.symlink_to(fold)
    (place,) = find_places([f"{link}/../fold_0"], results)
    assert place.path == fold.resolve()
    outside = results.parent / "outside"
    rf.write_summary(outside, {"a": {"1": 0.5}})
    (outside / "validation" / "summary.json").rename(outside / "summary.json")
    monkeypatch.chdir(fold.parent)
    (place,) = find_places([os.path.relpath(outside)], results)
    assert place.task is None


def test_predictions_of_one_name_are_told_apart_where_one_path_names_the_dataset(tmp_path: Path) -> None:
    folders = [tmp_path / "Dataset004_X" / "preds", tmp_path / "other" / "preds"]
    for folder in folders:
        rf.write_summary(folder, {"a": {"1": 0.5}})
        (folder / "validation" / "summary.json").rename(folder / "summary.json")
    places = find_places(list(map(str, folders)), tmp_path)
    assert {place.task for place in places} == {"Dataset004_X"}
    assert len({place.name for place in places}) == 2
