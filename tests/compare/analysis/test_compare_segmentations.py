"""Dice and surface distances of segmentations, predictions against references."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
from scipy.spatial import cKDTree

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.analysis.segmentations import (
    _Job,
    _measure,
    find_reference,
    labels_of,
    mask_of,
    measure_surfaces,
    read_image,
)
from ppgs.compare.analysis.surfaces import surface_distances
from ppgs.compare.model import CaseScores
from ppgs.compare.reporting.json_data import to_json
from ppgs.compare.reporting.pictures import case_pictures
from ppgs.compare.reporting.report import render
from ppgs.compare.results import Comparison
from ppgs.errors import BadInput
from ppgs.tasks import Roots
from tests.helpers import result_folders as rf


def borders(mask: Any, spacing: tuple[float, ...]) -> Any:
    """Centres of the mask's border voxels, in mm."""
    from scipy.ndimage import binary_erosion

    return np.argwhere(mask & ~binary_erosion(mask)) * np.asarray(spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_hd95_is_near_brute_force(spacing: tuple[float, float, float]) -> None:
    a = rf.ball((24, 40, 40), (12, 20, 20), 11, spacing)
    b = rf.ball((24, 40, 40), (12, 22, 23), 9, spacing)
    pa, pb = borders(a, spacing), borders(b, spacing)
    ab, ba = cKDTree(pb).query(pa)[0], cKDTree(pa).query(pb)[0]
    expected = max(np.percentile(ab, 95), np.percentile(ba, 95))
    surface_dice, hd95 = surface_distances(b, a, spacing, 2.0)
    assert hd95 == pytest.approx(expected, abs=max(spacing))
    within = (np.sum(ab <= 2) + np.sum(ba <= 2)) / (len(ab) + len(ba))
    assert surface_dice == pytest.approx(within, abs=0.1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.79, 0.79), (0.7, 1.3)])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_package_with_its_distance_transform(spacing: tuple[float, ...], seed: int) -> None:
    import surface_distance
    from scipy.ndimage import gaussian_filter

    draw = np.random.default_rng(seed)
    shape = (18, 40, 36)[-len(spacing) :]
    a, b = (gaussian_filter(draw.normal(size=shape), 2) > 0.05 for _ in range(2))
    expected = surface_distance.compute_surface_distances(a, b, spacing)
    # A tolerance that many points lie at exactly.
    tolerance = 2 * spacing[-1]
    found = surface_distances(b, a, spacing, tolerance)
    assert found == (
        pytest.approx(surface_distance.compute_surface_dice_at_tolerance(expected, tolerance), abs=1e-12),
        pytest.approx(surface_distance.compute_robust_hausdorff(expected, 95.0), abs=1e-12),
    )


def test_a_shift_is_its_own_hausdorff_distance_and_tolerance() -> None:
    a = np.zeros((10, 40, 40), bool)
    a[2:8, 5:15, 5:35] = True
    b = np.roll(a, 10, axis=1)
    assert surface_distances(b, a, (1, 1, 1), 10.0) == (1.0, pytest.approx(10, abs=0.5))
    assert surface_distances(a, a, (1, 1, 1), 0.0) == (1.0, 0.0)


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)
    assert all(math.isnan(v) for v in surface_distances(empty, empty, (1, 1, 1), 1.0))
    worst = (0.0, pytest.approx(math.hypot(8, 5, 6)))
    assert surface_distances(full, empty, (2, 1, 1), 1.0) == worst
    assert surface_distances(empty, full, (2, 1, 1), 1.0) == worst


def test_two_dimensions() -> None:
    a = np.zeros((30, 30), bool)
    a[5:20, 5:20] = True
    assert surface_distances(np.roll(a, 3, axis=0), a, (2.0, 1.0), 1.0)[1] == pytest.approx(6, abs=1)


def test_labels_and_regions() -> None:
    values = np.asarray([0, 1, 2, 3])
    assert labels_of("(1, 3)") == (1, 3)
    assert mask_of(values, labels_of("(1, 3)")).tolist() == [False, True, False, True]
    assert mask_of(values, labels_of("2")).tolist() == [False, False, True, False]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(BadInput) as error:
        read_image(tmp_path / "a.nii.gz")
    assert error.value.problems[0].where.endswith("a.nii.gz")


SPACING = rf.SPACING


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return rf.write_predictions(tmp_path)


def run(root: Path, *given: str, **options: Any) -> Comparison:
    return compare(CompareRequest(tuple(str(root / g) for g in given), Roots.under(root), **options))


def test_predictions_against_references(folders: Path) -> None:
    result = run(folders, "a", "b", references=folders / "labels", tolerance_mm=1.5, workers=1)
    a, b = result.tasks[0].runs
    first = read_image(folders / "labels" / "case0.nii.gz").values
    shifted = np.roll(first, 1, axis=2)
    dice = [2 * np.sum((first == v) & (shifted == v)) / (np.sum(first == v) + np.sum(shifted == v)) for v in (1, 2)]
    assert a.per_case["case0"] == pytest.approx(np.mean(dice))
    assert result.pairs[0].statistics.cases == 7
    assert result.pairs[0].statistics.mean_difference < 0
    assert a.surface is not None
    assert b.surface is not None
    assert a.surface.surface_dice > b.surface.surface_dice
    assert a.surface.per_class["1"][1] == pytest.approx(1, abs=0.3)
    assert (a.run.name, a.run.fold_names) == ("a", ())
    without = run(folders, "a", "b", references=folders / "labels", surface=False)
    assert without.tasks[0].runs[0].surface is None


def test_folders_of_folders_as_predict_writes_and_takes_them(folders: Path) -> None:
    flat = run(folders, "a", "b", references=folders / "labels", workers=1).tasks[0].runs
    nested = folders / "nested"
    for folder in ("a", "b", "labels"):
        for number, file in enumerate(sorted((folders / folder).iterdir())):
            (place := nested / folder / f"patient{number % 2}" / "scans").mkdir(parents=True, exist_ok=True)
            file.rename(place / file.name.replace("case", "ct"))
    rf.write_image(nested / "a" / "overlays" / "ct.png", np.zeros((1, 4, 4), np.uint8), (1, 1, 1))
    rf.write_image(nested / "a" / ".hidden" / "ct.nii.gz", np.zeros((2, 4, 4), np.uint8), (1, 1, 1))
    result = run(nested, "a", "b", references=nested / "labels", workers=1)
    for one, known in zip(result.tasks[0].runs, flat, strict=True):
        assert one.per_case == {f"patient{n % 2}/scans/ct{n}": known.per_case[f"case{n}"] for n in range(7)}
        assert one.surface is not None and one.surface.cases == 7
    assert not result.notes
    pictures = case_pictures(result, lambda _: [nested / "labels"], lambda _: [])
    assert len(pictures) == 6


@pytest.mark.parametrize("described_by", ["plans.json", "dataset.json"])
def test_labels_in_another_orientation_than_the_images(folders: Path, described_by: str) -> None:
    for name, orientation in (("a", "RAS"), ("b", "PIR")):
        for file in (folders / "labels").iterdir():
            turned = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(file)), orientation)
            SimpleITK.WriteImage(turned, str(folders / name / file.name))

    def describe(reader: str) -> None:
        content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "corner": 2}}
        places = ("a", "b") if described_by == "plans.json" else ("labels",)
        key = "image_reader_writer" if described_by == "plans.json" else "overwrite_image_reader_writer"
        for name in places:
            (folders / name / described_by).write_text(json.dumps(content | {key: reader}))

    for reader in ("NibabelIOWithReorient", "SimpleITKIOWithReorient"):
        describe(reader)
        result = run(folders, "a", "b", references=folders / "labels", workers=1)
        for one in result.tasks[0].runs:
            assert one.surface is not None
            assert (one.mean_dice, one.surface.surface_dice, one.surface.hd95_mm) == (1, 1, 0)
        pictures = case_pictures(result, lambda _: [folders / "labels"], lambda _: [folders / "images"])
        assert len(pictures) == 6 and all(picture.with_image for picture in pictures)
    # Other readers take voxels as they are stored.
    describe("SimpleITKIO")
    with pytest.raises(BadInput, match=r"prediction has shape \(40, 10, 32\), reference \(10, 32, 40\)"):
        run(folders, "a", "b", references=folders / "labels")


def test_references_that_no_run_has_are_named(folders: Path) -> None:
    for n in (2, 5):
        for name in ("a", "b"):
            (folders / name / f"case{n}.nii.gz").unlink()
    (folders / "a" / "case3.nii.gz").unlink()
    (folders / "labels" / "case6.nii.gz").unlink()
    (folders / "labels" / "._case0.nii.gz").write_bytes(b"what a Mac adds")
    result = run(folders, "a", "b", references=folders / "labels", surface=False)
    assert result.unpredicted == ("case2", "case5")
    assert to_json(result)["unpredicted_references"] == ["case2", "case5"]
    (told,) = (note for note in result.notes if "no prediction in any" in note)
    assert "2 references" in told and "case2, case5" in told
    assert any("case6" in note and "no reference" in note for note in result.notes)
    assert "no prediction in any of the compared runs" in render(result)
    (folders / "b" / "case2.nii.gz").write_bytes((folders / "labels" / "case2.nii.gz").read_bytes())
    assert run(folders, "a", "b", references=folders / "labels", surface=False).unpredicted == ("case5",)


def test_every_prediction_folder_has_the_classes_of_all_references(folders: Path) -> None:
    rare = read_image(folders / "labels" / "case6.nii.gz").values.copy()
    rare[0, 0, :3] = 3
    rf.write_image(folders / "labels" / "case6.nii.gz", rare, SPACING)
    (folders / "b" / "case6.nii.gz").unlink()
    result = run(folders, "a", "b", references=folders / "labels", surface=False)
    assert [list(r.dice_per_class) for r in result.tasks[0].runs] == [["1", "2", "3"]] * 2
    assert result.pairs[0].statistics.cases == 6


def test_a_reference_in_another_users_home_is_not_looked_at(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path.is_file

    def closed(path: Path) -> bool:
        if "alice" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return own(path)

    monkeypatch.setattr(Path, "is_file", closed)
    prediction = folders / "a" / "case0.nii.gz"
    scores = CaseScores("case0", {"1": 0.5}, {"1": 3}, prediction, Path("/home/alice/labelsTr/case0.nii.gz"))
    assert find_reference(scores, [folders / "labels"]) == folders / "labels" / "case0.nii.gz"


def test_folds_with_other_classes_have_surface_distances_of_all(folders: Path) -> None:
    a = run(folders, "a", "b", references=folders / "labels", surface=False).tasks[0].runs[0].run
    first, *others = a.cases
    fold = replace(a.folds[0], cases=(replace(first, dice={"1": first.dice["1"]}), *others))
    surface, notes = measure_surfaces(replace(a, folds=(fold,)), [], 1.0, print, 1)
    assert surface is not None and not notes and list(surface.per_class) == ["1", "2"]


def test_surface_distances_of_some_cases_are_noted(folders: Path) -> None:
    runs = []
    for name in ("a", "b"):
        model = rf.write_model(folders, f"{name}__p__c", {"0": {f"case{n}": {"1": 0.5, "2": 0.5} for n in range(7)}})
        runs.append(str(model))
        for n in range(7):
            if name == "a" or n < 4:
                shutil.copy(folders / name / f"case{n}.nii.gz", model / "fold_0" / "validation")
    result = run(folders, *runs, references=folders / "labels", workers=1)
    assert [r["surface_cases"] for r in to_json(result)["runs"]] == [7, 4]
    (note,) = (n for n in result.notes if "surface" in n)
    assert "b__p__c: surface distances of 4 of 7 cases" in note


def test_classes_of_predictions_come_from_dataset_json_with_regions_and_ignore(folders: Path) -> None:
    rf.write_dataset(folders / "labels", {"all": [1, 2], "corner": [2], "ignore": 3})
    result = run(folders, "a", "b", references=folders / "labels", surface=False)
    assert list(result.tasks[0].runs[0].dice_per_class) == ["(1, 2)", "(2,)"]


def test_what_the_reference_ignores_counts_for_no_metric(folders: Path) -> None:
    rf.write_dataset(folders / "labels", {"ball": 1, "corner": 2, "ignore": 3})
    for n in range(7):
        reference = read_image(folders / "labels" / f"case{n}.nii.gz").values
        exact = reference.copy()
        reference[:, 24:] = 3
        rf.write_image(folders / "labels" / f"case{n}.nii.gz", reference, SPACING)
        # Right wherever the reference is known, and full of class 1 elsewhere.
        exact[:, 24:] = 1
        rf.write_image(folders / "a" / f"case{n}.nii.gz", exact, SPACING)
    a = run(folders, "a", "b", references=folders / "labels", workers=1).tasks[0].runs[0]
    assert a.mean_dice == 1
    assert a.surface is not None
    assert a.surface.per_class == {"1": (1.0, 0.0), "2": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("workers", "cores", "expected"), [(16, 2, 7), (5, 2, 5), (2, 2, 2), (1, 64, None), (None, 64, None)]
)
def test_as_many_processes_as_asked_for_and_no_more_than_cases(
    folders: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None, cores: int, expected: int | None
) -> None:
    started: list[int] = []

    class Pool(ThreadPool):
        def __init__(self, count: int, context: object) -> None:
            started.append(count)
            super().__init__(count)

    monkeypatch.setattr("ppgs.compare.analysis.segmentations.WorkerPool", Pool)
    monkeypatch.setattr("ppgs.compare.analysis.segmentations.cpu_count", lambda: cores)
    result = run(folders, "a", "b", references=folders / "labels", workers=workers)
    assert all(r.surface and r.surface.cases == 7 for r in result.runs)
    assert started == ([] if expected is None else [expected, expected])


def test_predictions_that_cannot_be_compared_are_named(folders: Path) -> None:
    with pytest.raises(BadInput) as error:
        run(folders, "a", "b")
    assert "--references" in error.value.problems[0].remedy
    rf.write_image(folders / "b" / "case3.nii.gz", np.ones((2, 3, 4), np.uint8), SPACING)
    with pytest.raises(BadInput) as error:
        run(folders, "a", "b", references=folders / "labels")
    assert "case3.nii.gz" in error.value.problems[0].where
    assert "(2, 3, 4)" in error.value.problems[0].what
    with pytest.raises(BadInput) as error:
        run(folders, "a", "b", references=folders / "images")
    assert "no prediction has a reference" in error.value.problems[0].what


@pytest.mark.parametrize("of_reference", [True, False])
def test_a_tiff_volume_has_the_spacing_of_the_file_beside_it(tmp_path: Path, of_reference: bool) -> None:
    """References of validated folds have none; nnU-Net writes one beside each prediction."""
    reference = np.zeros((12, 8, 8), np.uint8)
    reference[2:5, 2:6, 2:6] = 1
    for name, values in (("reference", reference), ("prediction", np.roll(reference, 3, axis=0))):
        tifffile.imwrite(tmp_path / f"{name}.tiff", values)
        if name == "prediction" or of_reference:
            (tmp_path / f"{name}.json").write_text(json.dumps({"spacing": [5, 0.7, 0.7]}))
    job = _Job(tmp_path / "prediction.tiff", tmp_path / "reference.tiff", {"1": (1,)}, 2.0, None)
    _, hd95 = _measure(job)["1"]
    assert hd95 == pytest.approx(15)
    (tmp_path / "prediction.json").write_text("{}")
    with pytest.raises(BadInput, match="spacing"):
        _measure(job)
