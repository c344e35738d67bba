"""Paths of a prediction's results, choice of references, and means of Dice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ppgs.commands.predict_parts import Part
from ppgs.commands.predict_results import PlannedResults, Scores, plan_results
from ppgs.errors import BadInput
from ppgs.nnunet.images.find import Image

ENDING = ".nii.gz"


def plan(tmp_path: Path, *names: str, part: Part = Part(), **options: Any) -> PlannedResults:  # noqa: B008
    cases = {Image(name, (tmp_path / f"{name}_0000{ENDING}",)): tmp_path / f"{name}{ENDING}" for name in names}
    wanted = {"as_file": False, "statistics": True, "overlay": True, "references": None}
    return plan_results(cases, ENDING, tmp_path, part, **(wanted | options))


def test_files(tmp_path: Path) -> None:
    def files(*names: str, **options: Any) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in plan(tmp_path, *names, **options).files]

    assert files("a", "p/b") == ["statistics.csv", "overlays/a.png", "overlays/p/b.png"]
    assert files("a", part=Part(2, 3)) == ["statistics-2-of-3.csv", "overlays/a.png"]
    assert files("a", as_file=True) == ["a_statistics.csv", "a_overlay.png"]
    assert files("a", statistics=False, overlay=False) == []
    assert files(part=Part(2, 3), overlay=False) == ["statistics-2-of-3.csv"]
    assert files(part=Part(2, 3), as_file=True) == []


def test_references(tmp_path: Path) -> None:
    references = tmp_path / "references"
    with pytest.raises(BadInput, match="no such folder"):
        plan(tmp_path, "a", references=references)
    (references / "p").mkdir(parents=True)
    with pytest.raises(BadInput, match="no image has a reference") as caught:
        plan(tmp_path, "a", "p/b", references=references)
    assert f"a{ENDING}" in caught.value.problems[0].remedy
    (references / f"p/b{ENDING}").touch()
    found = plan(tmp_path, "a", "p/b", references=references)
    assert [image.name for image in found.references] == ["p/b"] and found.without_reference == ("a",)
    one = references / f"p/b{ENDING}"
    assert list(plan(tmp_path, "a", references=one).references.values()) == [one]
    with pytest.raises(BadInput, match="several images"):
        plan(tmp_path, "a", "b", references=one)


def test_means_leave_out_what_is_not_defined() -> None:
    nan = math.nan
    scores = Scores({"a": {"x": 0.5, "y": nan}, "b": {"x": 1.0, "y": 0.25}, "c": {"x": nan, "y": nan}})
    assert scores.per_class == {"x": 0.75, "y": 0.25} and scores.mean == 0.5
    assert (scores.mean_of("a"), scores.mean_of("b")) == (0.5, 0.625)
    assert math.isnan(scores.mean_of("c")) and math.isnan(Scores({}).mean)
