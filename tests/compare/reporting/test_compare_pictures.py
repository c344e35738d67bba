"""Pictures of cases for the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.analysis.segmentations import Image
from ppgs.compare.reporting.pictures import Picture, best_slice, case_pictures
from ppgs.tasks import Roots
from tests.helpers import result_folders as rf


def test_pictures_show_three_cases_at_the_right_aspect(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    folders = rf.write_predictions(tmp_path)
    runs = (str(folders / "a"), str(folders / "b"))
    request = CompareRequest(runs, Roots.under(folders), references=folders / "labels", surface=False)
    result = compare(request)
    pictures = case_pictures(result, lambda _: [folders / "labels"], lambda _: [folders / "images"])
    assert [(p.run, p.which) for p in pictures] == [(r, w) for r in "ab" for w in ("best", "median", "worst")]
    ordered = sorted(result.tasks[0].runs[0].per_case.items(), key=lambda item: item[1])
    assert pictures[0].case == ordered[-1][0]
    assert pictures[2].case == ordered[0][0]
    assert all(p.with_image and p.slice_axis == 0 for p in pictures)
    size = Pillow.open(io.BytesIO(pictures[0].png)).size
    assert min(size) > 50


def test_slice_is_across_the_widest_spacing_where_both_are() -> None:
    reference, prediction = np.zeros((9, 20, 20), np.uint8), np.zeros((9, 20, 20), np.uint8)
    reference[4, 5:10, 5:10] = 1
    prediction[4, 5:8, 5:8] = 1
    # A false island larger than the object does not hide what was missed.
    prediction[8, :, :] = 1
    assert best_slice(Image(reference, rf.SPACING), Image(prediction, rf.SPACING), ["1"]) == (0, 4)
    missed = np.zeros_like(reference)
    assert best_slice(Image(reference, rf.SPACING), Image(missed, rf.SPACING), ["1"]) == (0, 4)
    assert best_slice(Image(reference[4], (1.0, 1.0)), Image(missed[4], (1.0, 1.0)), ["1"]) == (-1, 0)


@pytest.mark.parametrize("orientation", ["LPS", "PIL", "LIP", "RAI", "ASR", "SLA"])
def test_slices_are_named_and_drawn_as_the_patient_is(tmp_path: Path, orientation: str) -> None:
    folders = rf.write_predictions(tmp_path)

    def picture() -> Picture:
        runs = (str(folders / "a"), str(folders / "b"))
        request = CompareRequest(runs, Roots.under(folders), references=folders / "labels", surface=False)
        return case_pictures(compare(request), lambda _: [folders / "labels"], lambda _: [folders / "images"])[0]

    expected = picture()
    for path in folders.glob("*/*.nii.gz"):
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), orientation), str(path))
    assert picture() == expected


def test_the_header_of_the_reference_turns_all(tmp_path: Path) -> None:
    """Predictions are compared voxel by voxel although their header was lost."""
    folders = rf.write_predictions(tmp_path)
    for path in [*folders.glob("*/*.nii.gz")]:
        image = SimpleITK.ReadImage(str(path))
        if path.parent.name == "labels":
            image.SetDirection(SimpleITK.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation("PIL"))
        SimpleITK.WriteImage(image, str(path))
    request = CompareRequest(
        (str(folders / "a"), str(folders / "b")), Roots.under(folders), references=folders / "labels", surface=False
    )
    picture = case_pictures(compare(request), lambda _: [folders / "labels"], lambda _: [folders / "images"])[0]
    # The slices were acquired from right to left.
    assert (picture.slice_axis, picture.with_image) == (2, True)
    assert picture.slice_index == 5
