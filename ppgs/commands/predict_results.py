"""Results computed from segmentations: `--statistics`, `--overlay`, and the Dice of `--references`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ppgs.commands.predict_parts import Part
from ppgs.errors import BadInput, Problem
from ppgs.nnunet.images.find import Image
from ppgs.outputs import is_older, remember
from ppgs.plans import Dataset, read_json
from ppgs.runs.atomic import write_text

if TYPE_CHECKING:
    from ppgs.nnunet.inference.results import Result

STATISTICS, OVERLAYS = "statistics", "overlays"
_COLUMNS = ("case", "class", "labels", "voxels", "volume_ml", "area_mm2")


@dataclass(frozen=True)
class PlannedResults:
    """Files to write beside the segmentations, and the available references."""

    statistics: Path | None = None
    overlays: Mapping[Image, Path] = field(default_factory=dict)
    references: Mapping[Image, Path] = field(default_factory=dict)
    without_reference: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [*([self.statistics] if self.statistics is not None else []), *self.overlays.values()]

    def made_before(self, segmented: Mapping[Image, Path]) -> set[Path]:
        """Return those of the files that an earlier prediction wrote, by their content; the record may be lost.

        They are statistics with the columns of ppgs, and pictures that are not made again.
        """
        pictures = {self.overlays[image]: path for image, path in segmented.items() if image in self.overlays}
        made = {picture for picture, path in pictures.items() if not is_older(picture, path)}
        return made | ({self.statistics} if self.statistics is not None and _has_columns(self.statistics) else set())

    @property
    def wanted(self) -> bool:
        return bool(self.files or self.references)


@dataclass(frozen=True)
class Scores:
    """Dice by case and class, NaN where neither image has the class; means leave NaN out, as nnU-Net's do."""

    cases: dict[str, dict[str, float]]

    def mean_of(self, case: str) -> float:
        return _mean(self.cases[case].values())

    @property
    def per_class(self) -> dict[str, float]:
        names = dict.fromkeys(name for scores in self.cases.values() for name in scores)
        return {name: _mean(scores[name] for scores in self.cases.values()) for name in names}

    @property
    def mean(self) -> float:
        """The mean over classes of their means over cases."""
        return _mean(self.per_class.values())


@dataclass(frozen=True)
class Results:
    """Files written beside the segmentations, Dice of the cases with a reference, and problems."""

    statistics: Path | None = None
    overlays: list[Path] = field(default_factory=list)
    scores: Scores | None = None
    problems: list[Problem] = field(default_factory=list)


def plan_results(
    cases: Mapping[Image, Path],
    ending: str,
    folder: Path,
    part: Part,
    *,
    as_file: bool,
    statistics: bool,
    overlay: bool,
    references: Path | None,
) -> PlannedResults:
    """Choose the files to write for these cases; raises `BadInput` if no case has a reference.

    Each part has separate statistics. Beside a single output file, names begin with that file's.
    """
    if as_file and not cases:
        return PlannedResults()
    if as_file:
        (output,) = cases.values()
        stem = output.name.removesuffix(ending)
        table = folder / f"{stem}_{STATISTICS}.csv"
        pictures = dict.fromkeys(cases, folder / f"{stem}_overlay.png")
    else:
        which = f"-{part.number}-of-{part.count}" if part.count > 1 else ""
        table = folder / f"{STATISTICS}{which}.csv"
        pictures = {image: folder / OVERLAYS / f"{image.name}.png" for image in cases}
    found = {} if references is None else _references(references, cases, ending)
    missing = () if references is None else tuple(image.name for image in cases if image not in found)
    return PlannedResults(table if statistics else None, pictures if overlay else {}, found, missing)


def _references(folder: Path, cases: Mapping[Image, Path], ending: str) -> dict[Image, Path]:
    if not folder.exists():
        raise BadInput("there is no such folder", f"--references {folder}", "give the folder that holds the references")
    if folder.is_file():
        if len(cases) != 1:
            raise BadInput("one reference, several images", f"--references {folder}", "give a folder of references")
        return dict.fromkeys(cases, folder)
    found = {image: file for image in cases if (file := folder / f"{image.name}{ending}").is_file()}
    if cases and not found:
        name = next(iter(cases)).name
        raise BadInput(
            "no image has a reference of its name", f"--references {folder}", f"{name}{ending}, for example, is missing"
        )
    return found


def work_out(
    planned: PlannedResults,
    segmented: Mapping[Image, Path],
    model: Path,
    dataset: Dataset,
    report: Callable[[int, int], None],
) -> Results:
    """Write the statistics and pictures of finished segmentations and compare them with their references.

    `model` is the folder with the plans. Raises `WorkerLost`.
    """
    if not planned.wanted:
        return Results()
    from ppgs.nnunet.inference.results import Examiner, Segmented

    classes = {name: value if isinstance(value, tuple) else (value,) for name, value in dataset.foreground.items()}
    cases = [
        Segmented(
            image.name,
            image.files[0],
            path,
            planned.statistics is not None,
            planned.overlays.get(image),
            planned.references.get(image),
        )
        for image, path in segmented.items()
    ]
    found = Examiner(read_json(model / "plans.json"), classes, dataset.ignore_label).examine(cases, report)
    if planned.statistics is not None:
        _write_statistics(planned.statistics, found, classes)
    scores = {result.name: result.dice for result in found if result.dice}
    return Results(
        planned.statistics,
        [case.picture for case in cases if case.picture is not None and case.picture.is_file()],
        Scores(scores) if planned.references else None,
        [problem for result in found for problem in result.problems],
    )


def _has_columns(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(200).rstrip() == ",".join(_COLUMNS)
    except OSError:
        return False


def _write_statistics(path: Path, results: Sequence[Result], classes: Mapping[str, tuple[int, ...]]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for result in results:
        for name, found in result.amounts.items():
            labels = " ".join(map(str, classes[name]))
            table.writerow([result.name, name, labels, found.voxels, _text(found.volume_ml), _text(found.area_mm2)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())
    remember(path)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
