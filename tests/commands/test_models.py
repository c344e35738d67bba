"""Names that stand for several folds of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppgs.commands.models import find_folds
from ppgs.commands.predict_children import as_record, of_record
from ppgs.commands.predict_plan import PredictRequest, choose_folds
from ppgs.compare.loading.sources import find_places
from ppgs.errors import NoSuchRun
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, write_manifest
from ppgs.runs.registry import find_run
from ppgs.tasks import Roots


def trained(results: Path, dataset: str, fold: int | str, label: str = "efficiency") -> RunFolder:
    run = RunFolder.place(results, dataset, label, "nnUNetPlans", "3d_fullres", fold)
    run.own.mkdir(parents=True)
    facts = {
        "name": f"Spleen-{label}-{fold if fold == 'all' else f'fold{fold}'}", "task": "9", "dataset": dataset,
        "plans": "nnUNetPlans", "configuration": "3d_fullres", "fold": fold, "trainer": "t", "schedule": label,
        "status": "finished", "request": {"task": "9", "kind": "nnunet", "schedule": "", "schedule_name": label},
    }  # fmt: skip
    write_manifest(run, Manifest.model_validate(facts))
    return run


def test_a_name_without_its_fold_is_all_folds_for_predict_export_and_compare(tmp_path: Path) -> None:
    runs = [trained(tmp_path, "Dataset009_Spleen", fold) for fold in (0, 1, "all")]
    trained(tmp_path, "Dataset009_Spleen", 0, "constant")
    assert find_folds("Spleen-efficiency", None, tmp_path) == runs[:2]
    assert find_folds("Spleen-efficiency-all", None, tmp_path) == runs[2:]
    (place,) = find_places(["Spleen-efficiency"], tmp_path)
    assert [name for name, _ in place.folds] == ["0", "1"]
    (place,) = find_places(["Spleen-efficiency-fold1"], tmp_path)
    assert place.run_name == "Spleen-efficiency-fold1"
    with pytest.raises(NoSuchRun, match="there is no run"):
        find_places(["Spleen-efficienc"], tmp_path)


def test_a_model_segments_with_its_finished_folds(tmp_path: Path) -> None:
    results = tmp_path / "nnUNet_results"
    runs = {fold: trained(results, "Dataset009_Spleen", fold) for fold in (0, 1, 2, "all")}
    # Fold 2 waits in a queue.
    runs[0].checkpoint_final.touch()
    runs[1].checkpoint_latest.touch()

    def chosen(run: str = "Spleen-efficiency", **options: Any) -> tuple[list[int | str], str | None, list[str]]:
        said: list[str] = []
        asked = PredictRequest(run, tmp_path, tmp_path / "out", **options)
        settled, found = choose_folds(asked, Roots.under(tmp_path), said.append)
        # As a process for one part of the images does it, perhaps when more folds are finished.
        assert choose_folds(settled, Roots.under(tmp_path))[1] == found
        return [fold for fold, run in runs.items() if run in found], settled.folds, said

    left = "fold 1, 2: not finished, left out (--fold 0,1 uses the latest checkpoint of fold 1)"
    assert chosen() == chosen(str(runs[0].model)) == ([0], "0", [left])
    assert chosen(folds="0,1") == ([0, 1], "0,1", [])
    assert chosen("Spleen-efficiency-fold1") == ([1], "1", [])
    assert chosen(checkpoint="latest") == ([0, 1, 2], "0,1,2", [])
    runs["all"].checkpoint_final.touch()
    assert chosen()[0] == [0]
    runs[0].checkpoint_final.rename(runs[0].checkpoint_latest)
    left = "fold 0, 1, 2: not finished, left out (--fold 0,1 uses the latest checkpoint of fold 0, 1)"
    assert chosen() == (["all"], "all", [left])
    runs["all"].checkpoint_final.unlink()
    assert chosen() == ([0, 1], "0,1", ["fold 2: not finished, left out"])


def test_folds_of_two_datasets_are_never_taken_together(tmp_path: Path) -> None:
    for dataset in ("Dataset009_Spleen", "Dataset109_Spleen"):
        trained(tmp_path, dataset, 0)
    trained(tmp_path, "Dataset109_Spleen", 1)
    for find in (lambda name: find_folds(name, None, tmp_path), lambda name: find_places([name], tmp_path)):
        with pytest.raises(NoSuchRun) as refused:
            find("Spleen-efficiency")
        (problem,) = refused.value.problems
        assert "Dataset009_Spleen" in problem.where and "Dataset109_Spleen" in problem.where
    with pytest.raises(NoSuchRun, match="several"):
        find_run("Spleen-efficiency-fold0", tmp_path)
    assert find_run("Spleen-efficiency-fold1", tmp_path).fold == "1"


def test_a_run_is_found_beside_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the segmentations of `ppgs predict RUN -o RUN`."""
    roots = Roots.under(tmp_path)
    results = roots.results
    runs = [trained(results, "Dataset009_Spleen", fold) for fold in (0, 1)]
    monkeypatch.chdir(tmp_path)
    for name, found in (("Spleen-efficiency-fold1", runs[1:]), ("Spleen-efficiency", runs)):
        Path(name).mkdir()
        assert find_folds(name, None, results) == found
        # The process of another GPU is given what was found.
        settled, _ = choose_folds(PredictRequest(name, Path("images"), Path(name)), roots)
        assert choose_folds(of_record(as_record(settled)), roots)[1] == found
    Path("other").mkdir()
    with pytest.raises(NoSuchRun, match="contains no run"):
        find_folds("other", None, results)
