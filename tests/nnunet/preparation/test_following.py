"""Prepared data follow their raw data: case by case, with splits and `dataset.json`, and runs report it."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import blosc2
import numpy as np
import pytest

from ppgs import upstream
from ppgs.commands.train.plan import plan_run
from ppgs.errors import BadInput, DatasetError, PlansError, RunError, RunLocked
from ppgs.nnunet.host.environment import prepare_environment
from ppgs.nnunet.preparation import conversion, following, pipeline
from ppgs.nnunet.preparation.following import default_splits
from ppgs.nnunet.preparation.pipeline import Preparation
from ppgs.nnunet.preparation.preprocessing import preprocess
from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import read_manifest
from ppgs.runs.older import OlderRuns
from ppgs.runs.prepared import RECORD, read_record
from ppgs.runs.provenance import origin_of
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots, Task
from tests.helpers.datasets import read, write
from tests.helpers.made_runs import made
from tests.helpers.small_dataset import (
    NAME,
    change_description,
    remove_case,
    write_case,
    write_dataset,
    write_decathlon,
    write_image,
    write_label,
)

TASK = Task("321", NAME, "nnunet")
CASES = [f"case_{number:02d}" for number in range(6)]


class Prepared:
    """A root with one prepared dataset, and what its last preparation warned of."""

    def __init__(self, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
        self.roots = roots
        self.raw, self.folder = roots.raw / NAME, roots.preprocessed / NAME
        self.cases, self.truth = self.folder / "nnUNetPlans_3d_fullres", self.folder / "gt_segmentations"
        self.warnings: list[str] = []
        self._open: list[IO[bytes]] = []
        for name, value in roots.environment.items():
            monkeypatch.setenv(name, value)
        prepare_environment(roots)

    def prepare(self, *, task: Task = TASK, **options: object) -> list[str]:
        self.warnings = []
        Preparation(
            task,
            self.roots,
            "nnUNetPlans",
            "3d_fullres",
            lambda *_: None,
            warn=self.warnings.append,
            **options,  # type: ignore[arg-type]
        ).run()
        return self.warnings

    @property
    def files(self) -> dict[str, int]:
        """The inode of every prepared file, which a file that is written again changes."""
        found = [p for folder in (self.cases, self.truth) for p in folder.iterdir()]
        # No inode is used again while its file is open.
        self._open += [p.open("rb") for p in found]
        return {p.name: p.stat().st_ino for p in found}

    @property
    def splits(self) -> list[dict[str, list[str]]]:
        return json.loads((self.folder / "splits_final.json").read_text())

    def labels_of(self, case: str) -> set[int]:
        values = np.unique(blosc2.open(str(self.cases / f"{case}_seg.b2nd"), mode="r")[:])
        return {int(value) for value in values} - {-1}

    def trained(self, name: str, *, status: str = "finished") -> RunFolder:
        """A run that was trained on what is prepared now."""
        run = RunFolder.place(self.roots.results, NAME, name, "nnUNetPlans", "3d_fullres", 0)
        made(run, name, status, dataset=NAME, origin=origin_of(self.folder, "nnUNetPlans", 0))
        run.checkpoint_final.write_bytes(b"")
        return run


def prepared_by(cases: list[str]) -> dict[str, set[str]]:
    """The files that preprocessing writes for cases, and those that hold their ground truth."""
    endings = (".b2nd", "_seg.b2nd", ".pkl")
    return {"images": {f"{c}{e}" for c in cases for e in endings}, "labels": {f"{c}.nii.gz" for c in cases}}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        roots = Roots.under(root)
        write_dataset(roots.raw / NAME)
        Prepared(roots, patch).prepare()
    return root


@pytest.fixture
def prepared(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    shutil.copytree(once, tmp_path / "root")
    return Prepared(Roots.under(tmp_path / "root"), monkeypatch)


def test_corrected_removed_and_new_cases_are_followed_and_nothing_else_is_touched(prepared: Prepared) -> None:
    before = prepared.files
    assert prepared.labels_of("case_03") == {0, 1, 2}
    write_label(prepared.raw, "case_03", 3, merged=True)
    os.utime(prepared.raw / "labelsTr" / "case_01.nii.gz")
    remove_case(prepared.raw, "case_05")
    write_case(prepared.raw, "case_09", 9)
    change_description(prepared.raw, description="corrected")
    told = "\n".join(prepared.prepare())
    after = prepared.files
    new, gone = prepared_by(["case_03", "case_09"]), prepared_by(["case_05"])
    assert {name for name in after if before.get(name) != after[name]} == new["images"] | new["labels"]
    assert before.keys() - after.keys() == gone["images"] | gone["labels"]
    assert prepared.labels_of("case_03") == {0, 1}
    assert (prepared.truth / "case_03.nii.gz").read_bytes() == (
        prepared.raw / "labelsTr" / "case_03.nii.gz"
    ).read_bytes()
    assert json.loads((prepared.folder / "dataset.json").read_text())["description"] == "corrected"
    # No run was trained: nnU-Net's own folds of the cases as they are now.
    assert prepared.splits == default_splits([*CASES[:5], "case_09"])
    for case in ("case_03", "case_05", "case_09"):
        assert case in told
    assert "case_01" not in told
    assert "plans are kept" in told
    assert prepared.prepare() == []
    assert prepared.files == after


def test_an_image_that_was_replaced_is_prepared_again(prepared: Prepared) -> None:
    before = prepared.files
    write_image(prepared.raw, "case_02", 77)
    prepared.prepare()
    assert {name for name, inode in prepared.files.items() if before[name] != inode} == prepared_by(["case_02"])[
        "images"
    ]


def test_a_case_that_nnunet_cannot_preprocess_is_named(prepared: Prepared) -> None:
    """A slice so thin that no voxel is left at the spacing of the plans."""
    for part, name in (("imagesTr", "case_02_0000.nii.gz"), ("labelsTr", "case_02.nii.gz")):
        write(read(prepared.raw / part / name)[8:9], prepared.raw / part / name, spacing=(1.0, 1.0, 0.3))
    with pytest.raises(DatasetError, match="nnU-Net cannot preprocess case_02: ValueError") as caught:
        prepared.prepare()
    assert "spacing" in caught.value.problems[0].remedy


def test_what_nnunet_cannot_plan_is_bad_input(prepared: Prepared) -> None:
    fingerprint = prepared.folder / "dataset_fingerprint.json"
    content = json.loads(fingerprint.read_text())
    fingerprint.write_text(json.dumps(content | {"spacings": [[0.0, 1.0, 1.0]] * 6}))
    (prepared.folder / "nnUNetPlans.json").unlink()
    with pytest.raises(PlansError, match=f"nnU-Net cannot plan {NAME}: ") as refused:
        prepared.prepare()
    (problem,) = refused.value.problems
    assert problem.where == str(fingerprint) and "remove it" in problem.remedy


def test_a_raw_file_that_is_lost_while_cases_are_prepared_is_named(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(prepared.raw, "case_02", 77)

    def lose(*arguments: Any, **options: Any) -> None:
        image.unlink()
        preprocess(*arguments, **options)

    monkeypatch.setattr(pipeline, "preprocess", lose)
    with pytest.raises(DatasetError, match="the image of case_02 is missing"):
        prepared.prepare()


def test_runs_on_older_data_are_named_and_no_case_moves_between_their_folds(prepared: Prepared) -> None:
    old = prepared.splits
    prepared.trained("done")
    prepared.trained("halfway", status="stopped")
    is_older = OlderRuns(prepared.roots.preprocessed)
    run = RunFolder.place(prepared.roots.results, NAME, "done", "nnUNetPlans", "3d_fullres", 0)
    assert is_older(read_manifest(run)) is False
    remove_case(prepared.raw, old[1]["val"][0])
    write_case(prepared.raw, "case_09", 9)
    told = "\n".join(prepared.prepare())
    assert "as they were before: done" in told
    assert "cannot be resumed now: halfway" in told
    new = prepared.splits
    assert "case_09" in new[1]["val"] or "case_09" in new[2]["val"]
    for was, fold in zip(old, new, strict=True):
        assert set(was["val"]) & {c for f in new for c in f["val"]} <= set(fold["val"])
        assert not set(fold["train"]) & set(fold["val"])
    assert OlderRuns(prepared.roots.preprocessed)(read_manifest(run)) is True
    # Extended folds are still known as those of ppgs.
    write_case(prepared.raw, "case_10", 10)
    prepared.prepare()
    assert sum("case_10" in fold["val"] for fold in prepared.splits) == 1


def test_a_live_training_keeps_its_data(prepared: Prepared) -> None:
    run = prepared.trained("live", status="training")
    write_label(prepared.raw, "case_03", 3, merged=True)
    before = prepared.files
    with Lock(run.lock), pytest.raises(RunLocked, match="'live' is training"):
        prepared.prepare()
    assert prepared.files == before
    # The run itself is no obstacle, nor is one that has ended.
    prepared.prepare()
    assert prepared.labels_of("case_03") == {0, 1}


def test_own_splits_are_not_rewritten(prepared: Prepared) -> None:
    own = [{"train": CASES[:3], "val": CASES[3:5]}]
    (prepared.folder / "splits_final.json").write_text(json.dumps(own))
    # A case that was left out from the beginning is meant to be.
    assert prepared.prepare() == []
    before = prepared.files
    write_case(prepared.raw, "case_09", 9)
    remove_case(prepared.raw, "case_00")
    with pytest.raises(DatasetError) as refused:
        prepared.prepare()
    text = "\n".join(problem.what for problem in refused.value.problems)
    assert "case_00" in text
    assert "case_05" not in text
    assert prepared.splits == own
    assert prepared.files == before
    (prepared.folder / "splits_final.json").write_text(json.dumps([{"train": CASES[1:3], "val": CASES[3:5]}]))
    with pytest.raises(DatasetError, match="case_09"):
        prepared.prepare()
    extended = [{"train": [*CASES[1:3], "case_09"], "val": CASES[3:5]}]
    (prepared.folder / "splits_final.json").write_text(json.dumps(extended))
    prepared.prepare()
    assert prepared.splits == extended


def test_a_run_that_has_begun_is_not_given_other_data(prepared: Prepared) -> None:
    run = prepared.trained("mine", status="stopped")
    begun = {"run": run, "begun": "mine"}
    (prepared.cases / "case_02.pkl").unlink()
    os.utime(prepared.raw / "labelsTr" / "case_01.nii.gz")
    # What is missing is made, also for a run that has started.
    assert prepared.prepare(**begun) == []  # type: ignore[arg-type]
    assert (prepared.cases / "case_02.pkl").is_file()
    write_case(prepared.raw, "case_09", 9)
    assert "case_09" in "\n".join(prepared.prepare(**begun))  # type: ignore[arg-type]
    assert not (prepared.cases / "case_09.pkl").exists()
    write_label(prepared.raw, "case_03", 3, merged=True)
    before = prepared.files
    with pytest.raises(RunError, match="case_03") as refused:
        prepared.prepare(**begun)  # type: ignore[arg-type]
    assert "ppgs resume mine --as-prepared" in refused.value.problems[0].remedy
    assert "case_03" in "\n".join(prepared.prepare(**begun, as_prepared=True))  # type: ignore[arg-type]
    assert prepared.files == before
    prepared.prepare()
    assert prepared.labels_of("case_03") == {0, 1}


def test_other_label_values_redo_all_cases_and_their_names_none(prepared: Prepared) -> None:
    before = prepared.files
    change_description(prepared.raw, labels={"background": 0, "liver": 1, "tumour": 2})
    assert prepared.prepare() == []
    assert prepared.files == before
    assert "tumour" in (prepared.folder / "dataset.json").read_text()
    change_description(prepared.raw, labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    assert "all cases are prepared again" in prepared.prepare()[0]
    after = prepared.files
    assert {n for n in after if before[n] != after[n]} == prepared_by(CASES)["images"]


@pytest.mark.parametrize("channels", [{"0": "CT"}])
def test_other_channels_do_not_fit_the_plans(prepared: Prepared, channels: dict[str, str]) -> None:
    change_description(prepared.raw, channel_names={"0": "T1"})
    assert prepared.prepare() == []
    change_description(prepared.raw, channel_names=channels)
    before = prepared.files
    with pytest.raises(PlansError, match="changed from T1 to CT"):
        prepared.prepare()
    assert prepared.files == before


def test_without_a_record_files_times_decide(prepared: Prepared) -> None:
    (prepared.folder / RECORD).unlink()
    before = prepared.files
    write_label(prepared.raw, "case_03", 3, merged=True)
    told = prepared.prepare()
    assert "case_03" in told[0]
    assert "newer" in told[0]
    new = prepared_by(["case_03"])
    after = prepared.files
    assert {n for n in after if before[n] != after[n]} == new["images"] | new["labels"]
    record = read_record(prepared.folder)
    assert record is not None
    assert record.changed is not None
    # Taken over as it is where nothing is newer.
    (prepared.folder / RECORD).unlink()
    assert prepared.prepare() == []
    assert prepared.files == after


@pytest.mark.parametrize(("module", "step"), [(pipeline, "preprocess"), (following, "write_splits")])
def test_what_a_kill_left_is_completed(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    write_label(prepared.raw, "case_03", 3, merged=True)
    write_case(prepared.raw, "case_09", 9)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, die)
        with pytest.raises(KeyboardInterrupt):
            prepared.prepare()
    prepared.prepare()
    assert prepared.labels_of("case_03") == {0, 1}
    assert (prepared.truth / "case_03.nii.gz").read_bytes() == (
        prepared.raw / "labelsTr" / "case_03.nii.gz"
    ).read_bytes()
    assert prepared.splits == default_splits([*CASES, "case_09"])


def test_a_changed_decathlon_folder_is_converted_again_case_by_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "Task321_Small"
    write_decathlon(source)
    prepared = Prepared(Roots.under(tmp_path / "root"), monkeypatch)
    task = Task(str(source), NAME, "decathlon", source)
    prepared.prepare(task=task)
    before = prepared.files
    raw = {path: path.stat().st_ino for path in prepared.raw.rglob("*.nii.gz")}
    write_label(source, "case_03", 3, merged=True)
    os.utime(source / "labelsTr" / "case_01.nii.gz")
    for part in ("imagesTr", "labelsTr"):
        (source / part / "case_05.nii.gz").unlink()
    write_decathlon(source, ["case_09"], first=9)
    told = "\n".join(prepared.prepare(task=task))
    assert "changed: case_03; new: case_09; gone: case_05" in told
    new, gone, after = prepared_by(["case_03", "case_09"]), prepared_by(["case_05"]), prepared.files
    assert {name for name in after if before.get(name) != after[name]} - {"case_03.b2nd"} <= (
        new["images"] | new["labels"]
    )
    assert before.keys() - after.keys() == gone["images"] | gone["labels"]
    assert prepared.labels_of("case_03") == {0, 1}
    kept = {path for path, inode in raw.items() if path.is_file() and path.stat().st_ino == inode}
    assert {path.name[:7] for path in raw.keys() - kept} == {"case_03", "case_05"}
    # Nothing that was in the raw dataset is lost.
    assert {path.name for path in prepared.raw.glob("ppgs_replaced/*/*/*")} == {"case_05_0000.nii.gz", "case_05.nii.gz"}
    assert json.loads((prepared.raw / "dataset.json").read_text())["numTraining"] == 6
    assert prepared.prepare(task=task) == []
    # A label that somebody corrected in the raw dataset counts there, and is kept when the folder's own changes.
    write_label(prepared.raw, "case_02", 2, merged=True)
    prepared.prepare(task=task)
    assert prepared.labels_of("case_02") == {0, 1}
    edited = (prepared.raw / "labelsTr" / "case_02.nii.gz").read_bytes()
    write_label(source, "case_02", 22)
    prepared.prepare(task=task)
    assert prepared.labels_of("case_02") == {0, 1, 2}
    assert edited in [path.read_bytes() for path in prepared.raw.glob("ppgs_replaced/*/labelsTr/case_02.nii.gz")]


def test_a_kill_while_a_decathlon_folder_is_followed_makes_nothing_look_edited(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.rmtree(prepared.roots.raw)
    shutil.rmtree(prepared.roots.preprocessed)
    source = tmp_path / "Task321_Small"
    write_decathlon(source)
    task = Task(str(source), NAME, "decathlon", source)
    prepared.prepare(task=task)
    write_label(source, "case_03", 3, merged=True)
    write_decathlon(source, ["case_09"], first=9)

    def killed(path: Path, text: str) -> None:
        if path.name == conversion.CHECKED:
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(conversion, "write_text", killed)
        prepared.prepare(task=task)
    assert not any("edited" in line for line in prepared.prepare(task=task))
    assert not list(prepared.raw.glob("ppgs_replaced"))
    assert prepared.labels_of("case_03") == {0, 1}
    # What is in place is recorded as ours, so that the next change replaces it.
    write_label(source, "case_03", 3)
    change_description(source, modality={"0": "MRI"})
    prepared.prepare(task=task)
    assert not list(prepared.raw.glob("ppgs_replaced"))
    assert json.loads((prepared.raw / "dataset.json").read_text())["channel_names"] == {"0": "MRI"}


def test_prepared_data_that_cannot_be_written_are_refused_when_outdated(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(prepared.folder))

    monkeypatch.setattr(Preparation, "_make", denied)
    assert prepared.prepare() == []
    write_label(prepared.raw, "case_03", 3, merged=True)
    with pytest.raises(BadInput, match="case_03"):
        prepared.prepare()


@pytest.mark.parametrize("has_raw", [True, False])
def test_one_model_on_all_cases_needs_no_splits_in_a_folder_that_cannot_be_written(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, has_raw: bool
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(prepared.folder))

    (prepared.folder / "splits_final.json").unlink()
    if not has_raw:
        shutil.rmtree(prepared.raw)
    monkeypatch.setattr(Preparation, "_make", denied)
    place = partial(RunFolder.place, prepared.roots.results, NAME, "x", "nnUNetPlans", "3d_fullres")
    runs = {fold: place(fold) for fold in (0, "all")}
    assert prepared.prepare(run=runs["all"]) == []
    for missing in (0, "all"):
        if missing == "all":
            (prepared.cases / "case_03.pkl").unlink()
        with pytest.raises(BadInput, match="cannot be written"):
            prepared.prepare(run=runs[missing])
    if not has_raw:
        # Too few for folds.
        for case in ("case_03", "case_04"):
            (prepared.truth / f"{case}.nii.gz").unlink()
        assert prepared.prepare() == []


def test_first_stage_segmentations_of_the_cases_before_are_gone_when_all_are_prepared_again(
    prepared: Prepared,
) -> None:
    """They have the shape of the old plans, and nnU-Net would train on them without a word."""
    model = prepared.roots.results / NAME / "nnUNetTrainerPPGS_a__nnUNetPlans__3d_lowres"
    stages = [model / upstream.NEXT_STAGE / name for name in ("3d_fullres", "2d")]
    for stage in stages:
        stage.mkdir(parents=True)
        (stage / "case_00.b2nd").touch()
    prepared.prepare()
    assert all(list(stage.iterdir()) for stage in stages)
    plans_file = prepared.folder / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
    plans_file.write_text(json.dumps(plans))
    assert any("all cases are prepared again" in message for message in prepared.prepare())
    assert [list(stage.iterdir()) == [] for stage in stages] == [True, False]


def as_older_nnunet(prepared: Prepared) -> None:
    """Leave what nnU-Net before 2.6 leaves: `.npz` files, some of them unpacked."""
    for path in list(prepared.cases.glob("*.b2nd")):
        path.unlink()
    for case in CASES:
        (prepared.cases / f"{case}.npz").touch()
    for part in (".npy", "_seg.npy"):
        (prepared.cases / f"{CASES[0]}{part}").touch()


@pytest.mark.parametrize("change", ["label", "case", "mixed", None])
def test_cases_of_an_older_nnunet_are_never_mixed_with_new_ones(prepared: Prepared, change: str | None) -> None:
    as_older_nnunet(prepared)
    if change == "label":
        write_label(prepared.raw, "case_03", 3, merged=True)
    elif change == "case":
        write_case(prepared.raw, "case_06", 6)
    elif change == "mixed":
        (prepared.cases / "case_03.b2nd").touch()
    told = prepared.prepare()
    assert any("an older nnU-Net" in line for line in told) == (change is not None)
    endings = {path.suffix for path in prepared.cases.iterdir()}
    assert endings == ({".npz", ".npy", ".pkl"} if change is None else {".b2nd", ".pkl"})
    assert len(list(prepared.cases.glob("*.pkl"))) == (7 if change == "case" else 6)


def test_a_run_on_cases_of_an_older_nnunet_prepares_none_again(prepared: Prepared) -> None:
    as_older_nnunet(prepared)
    prepared.prepare(begun="mine")
    (prepared.cases / "case_03.pkl").unlink()
    with pytest.raises(RunError, match="case_03 are gone"):
        prepared.prepare(begun="mine")
    assert not list(prepared.cases.glob("*.b2nd"))


@pytest.mark.parametrize("key", ["plans_name", "dataset_name"])
def test_plans_of_another_name_or_dataset_are_refused(prepared: Prepared, key: str) -> None:
    plans_file = prepared.folder / "nnUNetPlans.json"
    plans_file.write_text(json.dumps(json.loads(plans_file.read_text()) | {key: "Dataset004_Other"}))
    before = prepared.files
    with pytest.raises(PlansError, match="Dataset004_Other"):
        prepared.prepare()
    with pytest.raises(PlansError, match="Dataset004_Other"):
        plan_run(TrainingRequest(task="321"), 0, prepared.roots)
    assert prepared.files == before and not list(prepared.roots.results.glob("*"))


def test_only_labels_are_cases_of_the_folds(prepared: Prepared) -> None:
    (prepared.folder / "splits_final.json").unlink()
    (prepared.truth / ".DS_Store").touch()
    (prepared.truth / "._case_00.nii.gz").touch()
    (prepared.truth / "notes.txt").touch()
    prepared.prepare()
    assert prepared.splits == default_splits(CASES)


def test_files_that_dataset_json_lists_elsewhere_are_checked_again_when_they_change(prepared: Prepared) -> None:
    elsewhere = prepared.raw.parent / "elsewhere"
    listed = {}
    for case in CASES:
        image, label = elsewhere / f"{case}_image.nii.gz", elsewhere / f"{case}_label.nii.gz"
        image.parent.mkdir(exist_ok=True)
        (prepared.raw / "imagesTr" / f"{case}_0000.nii.gz").rename(image)
        (prepared.raw / "labelsTr" / f"{case}.nii.gz").rename(label)
        listed[case] = {"images": [str(image)], "label": str(label)}
    change_description(prepared.raw, dataset=listed)
    prepared.prepare()
    spoilt = read(elsewhere / "case_02_image.nii.gz")
    spoilt[0] = np.nan
    write(spoilt, elsewhere / "case_02_image.nii.gz")
    with pytest.raises(DatasetError, match="NaN"):
        prepared.prepare()
