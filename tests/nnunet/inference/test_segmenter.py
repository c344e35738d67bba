"""A cascade's two passes over images, whose stages are stood in for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppgs.errors import Problem, Problems
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference import segmenter
from ppgs.nnunet.inference.pipeline import Outcome, Timing
from ppgs.nnunet.inference.segmenter import Segmenter


class Stage:
    """Writes a file for each image but `torn`; remembers each pass, and where the first stage's files were."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.passes: list[list[str]] = []

    def require_room(self, *_: Any) -> None:
        pass

    def run(
        self,
        outputs: dict[Image, Path],
        staging: Path,
        previous: Path | None,
        report: Any,
        wrote: Callable[[Path], object] = lambda _: None,
    ) -> Outcome:
        problems, written = Problems(), []
        self.passes.append([image.name for image in outputs])
        for number, (image, path) in enumerate(outputs.items(), 1):
            if previous is not None:
                self.first.append((previous / f"{image.name}.nii.gz").read_text())
            if image.name == "torn":
                problems.found.append(Problem("torn", image.name))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{path.relative_to(staging) if previous is None else path.name}")
                written.append(path)
                wrote(path)
            report(number, len(outputs))
        return Outcome(written, problems, Timing(1.0))


def staged(stage: Stage, previous: Segmenter | None = None) -> Segmenter:
    made = object.__new__(Segmenter)
    made._pipeline, made._ending, made._previous = stage, ".nii.gz", previous  # type: ignore[assignment]
    return made


def test_the_second_stage_follows_the_first_for_every_image_that_it_could_do(tmp_path: Path) -> None:
    names = ("ct", "previous/ct", "torn")
    outputs = {Image(name, ()): tmp_path / f"{name}.nii.gz" for name in names}
    second, seen = Stage(), list[tuple[int, int]]()
    outcome = staged(second, staged(Stage())).run(outputs, tmp_path, report=lambda *at: seen.append(at))
    assert [path.relative_to(tmp_path).as_posix() for path in outcome.written] == ["ct.nii.gz", "previous/ct.nii.gz"]
    assert second.first == [".previous/ct.nii.gz", ".previous/previous/ct.nii.gz"]
    assert [problem.where for problem in outcome.problems.found] == ["torn"]
    assert seen == [(1, 6), (2, 6), (3, 6), (5, 6), (6, 6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz", "previous"], "nothing is left of the work"


def test_an_interruption_loses_the_first_stage_of_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a job with a time limit that is too short for the first stage of all images would never finish one."""
    monkeypatch.setattr(segmenter, "_GROUP", 2)
    outputs = {Image(name, ()): tmp_path / f"{name}.nii.gz" for name in ("a", "b", "torn", "d", "e")}
    first, second = Stage(), Stage()
    seen, wrote = list[tuple[int, int]](), list[Path]()

    def interrupted(path: Path) -> None:
        if path.name == "d.nii.gz":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        staged(second, staged(first)).run(outputs, tmp_path, report=lambda *_: None, wrote=interrupted)
    assert first.passes == [["a", "b"], ["torn", "d"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "d.nii.gz"]

    first, second = Stage(), Stage()
    made = staged(second, staged(first)).run(outputs, tmp_path, report=lambda *at: seen.append(at), wrote=wrote.append)
    assert first.passes == [["a", "b"], ["torn", "d"], ["e"]] and second.passes == [["a", "b"], ["d"], ["e"]]
    assert made.written == wrote == [outputs[Image(name, ())] for name in "abde"]
    assert [problem.where for problem in made.problems.found] == ["torn"] and made.timing.seconds == 6
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6, 8, 9, 10] and {total for _, total in seen} == {10}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.nii.gz" for name in "abde"]
