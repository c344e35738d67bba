"""Segmentation beside workers: what is refused before it, a worker that dies, images that fail, where logits go."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

import ppgs
from ppgs.commands import predict as command
from ppgs.commands.predict_plan import PredictRequest, plan_prediction
from ppgs.errors import DatasetError, DoesNotFit
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference import pipeline
from ppgs.nnunet.inference.cases import Cases
from ppgs.nnunet.inference.memory import Room
from ppgs.nnunet.inference.window import Predictor
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots
from tests.helpers.commands import Ppgs


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path, demo_root: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())[:3]:
        shutil.copy(path, folder / path.name)
    return folder


def names(images: Path) -> list[str]:
    return sorted(path.name.replace("_0000", "") for path in images.iterdir())


def predict(run: Path, images: Path, out: Path, **options: Any) -> tuple[command.Predicted, list[str], list[Any]]:
    said: list[str] = []
    seen: list[Any] = []
    asked = PredictRequest(str(run), images, out, device="cpu", mirroring=False, **options)
    runs, roots = [RunFolder(run)], Roots.under(run.parents[3])
    planned = plan_prediction(asked, runs, roots)
    done = command.predict(asked, planned, runs, roots, lambda *at: seen.append(at), said.append)
    return done, said, seen


def test_speed_and_order_and_where_logits_go(trained_demo: Path, images: Path, tmp_path: Path) -> None:
    done, said, seen = predict(trained_demo, images, tmp_path / "out")
    assert [path.name for path in done.files] == names(images)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert done.speed["images_per_minute"] > 0
    assert set(done.speed["stage_seconds"]) == {"preprocessing", "network", "export"}
    assert done.speed["slowest_stage"] in done.speed["stage_seconds"]
    assert len(said) == 1 and said[0].startswith(names(images)[0].removesuffix(".nii.gz")) and "in memory" in said[0]


def test_more_workers_and_a_file_of_logits_change_no_voxel(
    trained_demo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(trained_demo, images, tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "choose_place", lambda *_: "file")
        predict(trained_demo, images, tmp_path / "b", preprocess_workers=2, export_workers=3)
        patch.setattr(pipeline, "flow_of", lambda *_: pipeline._Flow(1, 1, 0))
        predict(trained_demo, images, tmp_path / "c")
    for name in names(images):
        first, *others = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / d / name))) for d in "abc")
        assert all((first == other).all() for other in others)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == names(images)


def test_nnunet_ensembles_two_predictions(trained_demo: Path, images: Path, tmp_path: Path) -> None:
    for path in sorted(images.iterdir())[1:]:
        path.unlink()
    for name, step in (("a", 0.5), ("b", 1.0)):
        predict(trained_demo, images, tmp_path / name, probabilities=True, step_size=step)
        stem = names(images)[0].removesuffix(".nii.gz")
        kinds = (f"{stem}{kind}" for kind in (".nii.gz", ".npz", ".pkl"))
        assert {path.name for path in (tmp_path / name).iterdir()} == {*kinds, "dataset.json", "plans.json"}
    before = (tmp_path / "a" / "plans.json").stat().st_mtime_ns
    done, _, _ = predict(trained_demo, images, tmp_path / "a", probabilities=True, overwrite=False)
    assert done.files == [] and (tmp_path / "a" / "plans.json").stat().st_mtime_ns == before
    command = [str(Path(sys.executable).with_name("nnUNetv2_ensemble")), "-o", "both", "-np", "1", "-i", "a", "b"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [path.name for path in (tmp_path / "both").glob("*.nii.gz")] == names(images)


def test_what_does_not_fit_is_refused_before_the_work(
    trained_demo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Room, "now", classmethod(lambda cls, *_: cls(None, 1000, 1000)))
    with pytest.raises(DoesNotFit) as caught:
        predict(trained_demo, images, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert [Path(p.where).name for p in caught.value.problems] == sorted(p.name for p in images.iterdir())
    assert all(p.remedy for p in caught.value.problems)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("stage", "deaths"), [("prepare", 1), ("prepare", 2), ("write", 2)])
def test_an_image_is_left_out_when_its_worker_dies_twice(
    trained_demo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, deaths: int
) -> None:
    victim = names(images)[1].removesuffix(".nii.gz")
    own = getattr(Cases, stage)

    def killed(self: Cases, image: Image, *rest: Any) -> Any:
        if image.name == victim and len(list(tmp_path.glob("death*"))) < deaths:
            (tmp_path / f"death{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, image, *rest)

    monkeypatch.setattr(Cases, stage, killed)
    if deaths > 1:
        with pytest.raises(DatasetError, match=victim) as caught:
            predict(trained_demo, images, tmp_path / "out", preprocess_workers=2)
        assert caught.value.exit_code == 2 and "--continue" in caught.value.problems[0].remedy
        assert victim in caught.value.problems[0].where
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [names(images)[0], names(images)[2]]
    done, _, seen = predict(trained_demo, images, tmp_path / "out", overwrite=False)
    assert len(done.files) == len(seen) == (1 if deaths > 1 else 3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names(images)


def test_a_single_image_is_tried_again_with_less_memory(
    trained_demo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(images.iterdir())[1:]:
        path.unlink()
    monkeypatch.setattr(pipeline, "flow_of", lambda *_: replace(pipeline._ONE, abreast=4))
    own = Cases.write

    def killed(self: Cases, *rest: Any) -> Any:
        if self.abreast > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, *rest)

    monkeypatch.setattr(Cases, "write", killed)
    done, _, _ = predict(trained_demo, images, tmp_path / "out")
    assert [path.name for path in done.files] == names(images)


def test_folders_below_keep_their_structure_and_parts_add_up(trained_demo: Path, images: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, path in enumerate(sorted(images.iterdir())):
        for place in ("", "p1", "p2/deep")[: number + 1]:
            (source / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / place / "ct_0000.nii.gz")
    (source / "p1" / "torn.nii.gz").write_bytes(path.read_bytes()[:2000])
    expected = ["ct.nii.gz", "p1/ct.nii.gz", "p2/deep/ct.nii.gz"]
    out = tmp_path / "out"

    def made() -> list[str]:
        return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())

    # One was left by a process that was killed, the other is in use.
    left, used = out / ".ppgs-part-left", out / ".ppgs-part-used"
    for staging in (left, used):
        staging.mkdir(parents=True)
        (staging / ".lock").touch()
    with (used / ".lock").open() as lock, pytest.raises(DatasetError) as caught:
        fcntl.flock(lock, fcntl.LOCK_EX)
        predict(trained_demo, source, out, recursive=True, part="1/1")
    assert used.is_dir() and not left.exists()
    shutil.rmtree(used)
    assert [Path(p.where).name for p in caught.value.problems] == ["torn.nii.gz"]
    assert made() == expected
    before = (out / "ct.nii.gz").stat().st_mtime_ns
    (out / "p1" / "ct.nii.gz").unlink()
    (source / "p1" / "torn.nii.gz").unlink()
    for part in ("1/2", "2/2"):
        predict(trained_demo, source, out, recursive=True, part=part, overwrite=False)
    assert made() == expected and (out / "ct.nii.gz").stat().st_mtime_ns == before
    flat = tmp_path / "flat"
    predict(trained_demo, source / "p2" / "deep", flat)
    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (out / expected[2], flat / "ct.nii.gz"))
    assert (first == second).all()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        ("Encountered inf in predicted array. Aborting...", "infinite"),
        # What cuDNN makes of too little memory.
        ("GET was unable to find an engine to execute this computation", "too small for the network"),
    ],
)
def test_an_image_that_the_network_cannot_do_is_named_and_the_others_are_done(
    trained_demo: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, problem: str
) -> None:
    own, calls = Predictor.logits, []

    def failing(self: Any, data: Any, *rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError(error)
        return own(self, data, *rest)

    monkeypatch.setattr(Predictor, "logits", failing)
    with pytest.raises(DatasetError, match=problem) as caught:
        predict(trained_demo, images, tmp_path / "out")
    assert len(caught.value.problems) == 1
    assert names(images)[1].removesuffix(".nii.gz") in caught.value.problems[0].where
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [names(images)[0], names(images)[2]]


def test_results_of_what_is_segmented_through_the_command(
    trained_demo: Path, images: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    """One subprocess predicts with all results; the second finds all done, and only works them out."""
    references = tmp_path / "references"
    out = tmp_path / "out"
    torn = images / "torn_0000.nii.gz"
    torn.write_bytes(next(images.iterdir()).read_bytes()[:2000])
    cases = [name.removesuffix(".nii.gz") for name in names(images) if not name.startswith("torn")]
    references.mkdir()
    wanted = ("--statistics", "--overlay", "--json", "--device", "cpu", "--no-mirroring")
    done = ppgs("predict", trained_demo, "-i", images, "-o", out, *wanted)
    assert done.returncode == 2 and "torn_0000.nii.gz" in done.stderr and "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert [Path(file).name for file in told["files"]] == [f"{case}.nii.gz" for case in cases]
    assert [Path(one["where"]).name for one in told["failed"]] == [torn.name]
    assert [Path(file) for file in told["checkpoints"]] == [trained_demo / "checkpoint_final.pth"]
    with Path(told["statistics"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows[::2]] == cases and {row["class"] for row in rows} == {"organ", "lesion"}
    first = sitk.ReadImage(str(out / f"{cases[0]}.nii.gz"))
    voxels = int((sitk.GetArrayFromImage(first) == int(rows[0]["labels"])).sum())
    assert int(rows[0]["voxels"]) == voxels
    assert float(rows[0]["volume_ml"]) == pytest.approx(voxels * math.prod(first.GetSpacing()) / 1000, rel=1e-5)
    assert sorted(Path(path).name for path in told["overlays"]) == [f"{case}.png" for case in cases]

    torn.unlink()
    # The same segmentation, one that is absent and one that has no reference.
    shutil.copy(out / f"{cases[0]}.nii.gz", references)
    empty = sitk.GetImageFromArray(sitk.GetArrayFromImage(first) * 0)
    empty.CopyInformation(first)
    sitk.WriteImage(empty, str(references / f"{cases[1]}.nii.gz"))
    again = ("--references", references, "--continue", *wanted[2:])
    done = ppgs("predict", trained_demo, "-i", images, "-o", out, *again)
    assert done.returncode == 0 and f"without a reference: {cases[2]}" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == [] and list(told["dice"]["cases"]) == cases[:2]
    for case, score in zip(cases[:2], (1.0, 0.0), strict=True):
        there = {row["class"]: score if int(row["voxels"]) else None for row in rows if row["case"] == case}
        assert told["dice"]["cases"][case] == there


def test_the_api_still_returns_files(trained_demo: Path, images: Path, tmp_path: Path) -> None:
    made = ppgs.predict(trained_demo, images, tmp_path / "out", device="cpu", mirroring=False, export_workers=1)
    assert [path.name for path in made] == names(images)
