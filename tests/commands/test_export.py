"""The models that `export` puts into a zip."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from ppgs.commands import export, model_card
from ppgs.commands.predict_plan import PredictRequest, previous_stage_of
from ppgs.errors import NoSuchRun
from ppgs.plans import parse_plans
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.schedule import Schedule, dump
from ppgs.tasks import Roots
from tests.commands.test_models import trained
from tests.helpers.facts import raw_plans

FIRST, SECOND = "Spleen-efficiency-fold0", "Spleen-cascade-fold0"


@pytest.mark.parametrize("given", [[FIRST, SECOND], [SECOND], [SECOND, "its folder"]])
def test_a_cascade_is_exported_once_also_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    target, link = tmp_path / "disk" / "nnUNet_results", tmp_path / "nnUNet_results"
    target.mkdir(parents=True)
    link.symlink_to(target)
    first = trained(link, "Dataset009_Spleen", 0)
    second = first.in_configuration("cascade")
    second.own.mkdir(parents=True)
    facts = {"name": SECOND, "configuration": "cascade"}
    second.manifest.write_text(json.dumps(json.loads(first.manifest.read_text()) | facts))
    plans = raw_plans()
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    for run in (first, second):
        run.checkpoint_final.touch()
        (run.model / "plans.json").write_text(json.dumps(plans))
    monkeypatch.setattr(export, "finished", lambda run: run)
    spelt = [str(second.path.resolve()) if name == "its folder" else name for name in given]
    models, _ = export.choose_models(spelt, None, tmp_path, {})
    assert sorted((m.configuration, len(m.runs)) for m in models) == [("3d_fullres", 1), ("cascade", 1)]


def test_the_first_stage_is_the_one_that_was_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "nnUNet_results"
    first, other = (trained(results, "Dataset009_Spleen", 0, label) for label in ("efficiency", "other"))
    second = first.in_configuration("cascade")
    second.own.mkdir(parents=True)
    facts = json.loads(first.manifest.read_text()) | {"name": SECOND, "configuration": "cascade"}
    facts["request"]["previous_stage"] = other.model.name
    second.manifest.write_text(json.dumps(facts))
    plans = raw_plans()
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    for run in (first, other, second):
        run.checkpoint_final.touch()
        (run.model / "plans.json").write_text(json.dumps(plans))
    monkeypatch.setattr(export, "finished", lambda run: run)
    models, _ = export.choose_models([SECOND], None, tmp_path, {})
    assert {model.source for model in models} == {other.model, second.model}
    asked = PredictRequest(run=SECOND, source=tmp_path, target=tmp_path / "out")
    chosen = previous_stage_of(asked, [second], Roots.under(tmp_path))
    assert isinstance(chosen, tuple) and [run.path for run in chosen[0]] == [other.path]


@pytest.mark.parametrize(
    ("second", "first", "chosen"),
    [
        (["all"], [0, 2, 10], ["0", "2", "10"]),
        ([0, 1], ["all"], ["all"]),
        ([0, 1], [1, 2, "all"], ["1"]),
        ([0], [1, "all"], ["all"]),
        ([0], [], []),
    ],
)
def test_a_cascade_whose_stages_have_different_folds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: list[int | str],
    first: list[int | str],
    chosen: list[str],
) -> None:
    results, dataset = tmp_path / "nnUNet_results", "Dataset009_Spleen"
    plans = raw_plans()
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    facts = json.loads(trained(tmp_path / "template", dataset, 0).manifest.read_text())
    runs = [RunFolder.place(results, dataset, "efficiency", "nnUNetPlans", "cascade", fold) for fold in second]
    for run in runs:
        run.own.mkdir(parents=True)
        named = {"name": f"Spleen-cascade-{run.path.name}", "configuration": "cascade", "fold": run.fold}
        run.manifest.write_text(json.dumps(facts | named))
    for run in (*runs, *(trained(results, dataset, fold) for fold in first)):
        run.checkpoint_final.touch()
        (run.model / "plans.json").write_text(json.dumps(plans))
    monkeypatch.setattr(export, "finished", lambda run: run)
    models, notes = export.choose_models([str(run.path) for run in runs], None, tmp_path, {})
    assert [model.folds for model in models[1:]] == ([tuple(chosen)] if chosen else [])
    assert len(notes) == 1 and ("goes with it" in notes[0]) == bool(chosen)
    asked = PredictRequest(run=str(runs[0].path), source=tmp_path, target=tmp_path / "out")
    if not chosen:
        with pytest.raises(NoSuchRun, match="the run that it was trained with is gone"):
            previous_stage_of(asked, runs, Roots.under(tmp_path))
        return
    found = previous_stage_of(asked, runs, Roots.under(tmp_path))
    assert isinstance(found, tuple) and [run.fold for run in found[0]] == chosen
    # Folds that are not trained to their end serve only where no others are.
    for run in found[0]:
        run.checkpoint_final.rename(run.path / "checkpoint_latest.pth")
    instead = previous_stage_of(asked, runs, Roots.under(tmp_path))
    assert isinstance(instead, tuple)
    assert (
        [run.fold for run in instead[0]] == chosen
        if len(first) == len(chosen)
        else not {run.fold for run in instead[0]} & {*chosen}
    )


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerNoMirroring"])
def test_the_models_card_tells_nnunet_which_trainers_model_it_is(tmp_path: Path, trainer: str) -> None:
    run = trained(tmp_path, "Dataset009_Spleen", 0)
    manifest = read_manifest(run)
    manifest.request = manifest.request.model_copy(update={"trainer": trainer})
    plans = parse_plans(raw_plans(), tmp_path)
    card = "\n".join(model_card._use([run], [], manifest, plans.configuration("3d_fullres")))
    assert (f" -tr {trainer} " in card) == (trainer != "nnUNetTrainer")


def test_files_without_a_date_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path / "nnUNet_results", "Dataset009_Spleen", 0)
    run.checkpoint_final.touch()
    plans = run.model / "plans.json"
    plans.write_text(json.dumps(raw_plans()))
    os.utime(plans, (0, 0))
    monkeypatch.setattr(export, "_add_fold", lambda *_: None)
    monkeypatch.setattr(model_card, "write_card", lambda *_: "")
    models, _ = export.choose_models([str(run.path)], None, tmp_path, {})
    export._write(models, zipped := io.BytesIO())
    assert any(name.endswith("/plans.json") for name in zipfile.ZipFile(zipped).namelist())


@pytest.mark.parametrize(
    ("first_folds", "command"),
    [((0, 1), "-f 0 1 -c 3d_fullres"), ((1,), "-f 1 -c 3d_fullres"), ((), None)],
)
def test_the_card_of_a_cascade_names_only_folds_of_the_first_stage_that_are_in_the_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_folds: tuple[int, ...], command: str | None
) -> None:
    plans = raw_plans()
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    stage = {"patch_size": [16, 16, 16], "batch_size": 2, "epochs": 1}
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    for number in (0, 1):
        first = trained(tmp_path / "nnUNet_results", "Dataset009_Spleen", number)
        second = first.in_configuration("cascade")
        second.own.mkdir(parents=True)
        facts = {"name": f"Spleen-cascade-fold{number}", "configuration": "cascade"}
        second.manifest.write_text(json.dumps(json.loads(first.manifest.read_text()) | facts))
        second.checkpoint_final.touch()
        if number in first_folds:
            first.checkpoint_final.touch()
        for run in (first, second):
            run.schedule.write_text(dump(Schedule.model_validate({"stages": [stage]})))
            (run.model / "plans.json").write_text(json.dumps(plans))
            (run.model / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.setattr(export, "finished", lambda run: run)
    monkeypatch.setattr(export, "_add_fold", lambda *_: None)
    models, _ = export.choose_models(["Spleen-cascade-fold0", "Spleen-cascade-fold1"], None, tmp_path, {})
    export._write(models, zipped := io.BytesIO())
    (name,) = (name for name in zipfile.ZipFile(zipped).namelist() if name.endswith("__cascade/model_card.md"))
    card = zipfile.ZipFile(zipped).read(name).decode()
    assert "-f 0 1 -c cascade -i IMAGES -o SEGMENTATIONS -prev_stage_predictions FIRST_STAGE" in card
    if command is None:
        assert "-c 3d_fullres" not in card and "does not contain the first one, `3d_fullres`" in card
    else:
        assert f"{command} -i IMAGES -o FIRST_STAGE" in card and "does not contain" not in card
