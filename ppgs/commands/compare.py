"""`compare`: compares runs and result folders, and writes the report and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ppgs.compare.loading.cost import carbon_intensity
from ppgs.compare.loading.sources import choose_baseline, find_places
from ppgs.compare.loading.summaries import is_file
from ppgs.errors import BadInput, Problems, RunError
from ppgs.outputs import check_outputs, remember
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.older import OlderRuns
from ppgs.runs.prepared import some
from ppgs.tasks import Roots

if TYPE_CHECKING:
    from ppgs.compare.analysis.comparison import MeasureSurfaces
    from ppgs.compare.loading.reader import ScorePredictions
    from ppgs.compare.loading.sources import Place
    from ppgs.compare.model import CaseScores, Run
    from ppgs.compare.results import Comparison, Surface


_REMOVE = "give another path, or remove the file first"


@dataclass(frozen=True)
class CompareRequest:
    """Options of `compare`. `margin` in Dice, `tolerance_mm` in mm, `grams_per_kwh` in g CO2eq per kWh."""

    runs: tuple[str, ...]
    roots: Roots
    baseline: str | None = None
    only: tuple[str, ...] = ()
    references: Path | None = None
    images: Path | None = None
    margin: float = 0.005
    tolerance_mm: float = 2.0
    surface: bool = True
    country: str | None = None
    grams_per_kwh: float | None = None
    keep_going: bool = False
    html: Path | None = None
    figures: Path | None = None
    workers: int | None = None


def compare(request: CompareRequest, progress: Callable[[str], None] = lambda _: None) -> Comparison:
    """Compare the runs of the request; write the report and figures that it asks for.

    Raises `BadInput` for fewer than two runs, for folders that cannot be compared and, unless `keep_going`, for any
    result that is damaged or missing; `NoSuchRun` for a name that no run has.
    """
    _check(request)
    places = find_places(request.runs, request.roots.results, request.only)
    if len(places) < 2:
        raise BadInput(
            f"comparing needs two runs or more, found {len(places)}",
            ", ".join(request.runs),
            "give another run ('ppgs runs' lists them), result folder or folder of predictions; a baseline is trained "
            "with: ppgs train TASK --schedule constant",
        )
    baseline = choose_baseline(request.baseline, places)

    # NumPy and SciPy take a while to import: bad usage is reported before.
    from ppgs.compare.analysis.comparison import Settings
    from ppgs.compare.analysis.comparison import compare as compare_runs
    from ppgs.compare.loading.reader import load_runs

    loaded = load_runs(places, _scorer(request, progress))
    if loaded.left_out and not request.keep_going:
        usable = ", ".join(f"{r.name} (folds {' '.join(r.fold_names) or '-'})" for r in loaded.runs) or "nothing"
        raise BadInput(
            loaded.left_out[0].what if len(loaded.left_out) == 1 else "some results cannot be used",
            problems=[
                *loaded.left_out[:-1],
                replace(loaded.left_out[-1], remedy=f"{loaded.left_out[-1].remedy}; still usable: {usable}"),
            ],
        )
    if len(loaded.runs) < 2:
        raise BadInput("fewer than two runs are left to compare", problems=loaded.left_out)
    settings = Settings(
        baseline=baseline,
        margin=request.margin,
        tolerance_mm=request.tolerance_mm,
        country=request.country,
        kg_per_kwh=None if request.grams_per_kwh is None else request.grams_per_kwh / 1000,
        keep_going=request.keep_going,
    )
    comparison = compare_runs(loaded.runs, settings, _surfaces(request, progress) if request.surface else None)
    unpredicted = _unpredicted(request, loaded.runs)
    comparison = replace(
        comparison,
        notes=(
            *loaded.notes,
            *_older(request, loaded.runs),
            *comparison.notes,
            *_note_unmatched(request, places, unpredicted),
        ),
        unpredicted=unpredicted,
        left_out=(*(f"{p.where}: {p.what}" for p in loaded.left_out), *comparison.left_out),
    )
    _write(comparison, request, progress)
    return comparison


def _older(request: CompareRequest, runs: list[Run]) -> list[str]:
    """Describe runs that were trained on older data than those prepared now."""
    is_older = OlderRuns(request.roots.preprocessed)
    names = []
    for run in runs:
        for fold in run.folds:
            # A run without a manifest that can be read, such as one of nnU-Net itself, does not say.
            with suppress(RunError):
                if is_older(read_manifest(RunFolder(fold.path))):
                    names.append(f"{run.task}: {run.name}")
                    break
    text = "trained on older data than are prepared now (cases were changed, added or removed since)"
    return [f"{'; '.join(names)}: {text}"] if names else []


def _check(request: CompareRequest) -> None:
    problems = Problems()
    if not 0 <= request.margin < 1:
        problems.add(f"the margin is {request.margin}", "--margin", "give Dice as a fraction, such as 0.005")
    if not 0 <= request.tolerance_mm < float("inf"):
        problems.add(f"the tolerance is {request.tolerance_mm}", "--tolerance", "give millimetres, such as 2")
    if request.grams_per_kwh is not None and not 0 <= request.grams_per_kwh < 10_000:
        problems.add(
            f"the carbon intensity is {request.grams_per_kwh}",
            "--carbon-intensity",
            "give g CO2eq per kWh, such as 380",
        )
    if request.country:
        try:
            carbon_intensity(request.country)
        except BadInput as error:
            problems.found += error.problems
    for folder, option in ((request.references, "--references"), (request.images, "--images")):
        if folder is not None and not folder.is_dir():
            problems.add("there is no such folder", f"{option} {folder}", "give the folder that contains the files")
    if request.html is not None and not request.html.absolute().parent.is_dir():
        problems.add("there is no such folder", f"--html {request.html}", "make the folder, or give another file")
    if request.figures is not None and request.figures.exists() and not request.figures.is_dir():
        problems.add("this is a file", f"--figures {request.figures}", "give a folder")
    problems.raise_as(BadInput, "these options cannot be used")
    if request.html is not None:
        check_outputs([request.html], remedy=_REMOVE)
    if request.figures is not None:
        check_outputs([request.figures / "figure.svg"], remedy=_REMOVE)


def _unpredicted(request: CompareRequest, runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the cases of `--references` that no run has predicted."""
    if request.references is None:
        return ()
    from ppgs.compare.analysis.segmentations import images_in

    predicted = {scores.case for run in runs for scores in run.cases}
    return tuple(case for case in images_in(request.references) if case not in predicted)


def _note_unmatched(request: CompareRequest, places: Sequence[Place], unpredicted: Sequence[str]) -> list[str]:
    """Note references without a prediction and predictions without a reference; neither counts."""
    if request.references is None:
        return []
    from ppgs.compare.analysis.segmentations import images_in

    notes, known = [], images_in(request.references)
    if unpredicted:
        have = "1 reference has" if len(unpredicted) == 1 else f"{len(unpredicted)} references have"
        notes.append(
            f"{request.references}: {have} no prediction in any of the compared runs and count nowhere: "
            f"{some(unpredicted)}"
        )
    for place in places:
        alone = [case for case in images_in(place.path) if case not in known] if place.is_predictions else []
        if alone:
            have = "1 prediction has" if len(alone) == 1 else f"{len(alone)} predictions have"
            notes.append(f"{place.name}: {have} no reference in {request.references}: {some(alone)}")
    return notes


def _scorer(request: CompareRequest, progress: Callable[[str], None]) -> ScorePredictions | None:
    references = request.references
    if references is None:
        return None

    def score(place: Place) -> tuple[CaseScores, ...]:
        from ppgs.compare.analysis.segmentations import score_predictions

        progress(f"Dice of {place.name}")
        return score_predictions(place, references)

    return score


def _roots_of(request: CompareRequest, run: Run) -> list[Roots]:
    """Return the given roots and those above the run's folder."""
    lies_in = (p for p in run.provenance.path.absolute().parents if p.name == "nnUNet_results")
    return [request.roots, *(Roots.under(p.parent) for p in lies_in)]


def _reference_folders(request: CompareRequest, run: Run) -> list[Path]:
    """Return the folders where nnU-Net keeps a task's references, besides those named in the summary."""
    given = [request.references] if request.references else []
    return given + [
        folder
        for roots in _roots_of(request, run)
        for folder in (roots.raw / run.task / "labelsTr", roots.preprocessed / run.task / "gt_segmentations")
    ]


def _image_folders(request: CompareRequest, run: Run) -> list[Path]:
    given = [request.images] if request.images else []
    return given + [roots.raw / run.task / "imagesTr" for roots in _roots_of(request, run)]


def _surfaces(request: CompareRequest, progress: Callable[[str], None]) -> MeasureSurfaces:
    def measure(run: Run) -> tuple[Surface | None, list[str]]:
        if not any(is_file(c.prediction) for c in run.cases):
            return None, []
        from ppgs.compare.analysis.segmentations import measure_surfaces

        return measure_surfaces(run, _reference_folders(request, run), request.tolerance_mm, progress, request.workers)

    return measure


def _write(comparison: Comparison, request: CompareRequest, progress: Callable[[str], None]) -> None:
    """Write figures and report, or neither if an existing file is in the way."""
    if request.figures is not None:
        from ppgs.compare.reporting.drawing import drawing_files, save_drawings
        from ppgs.compare.reporting.figures import drawings

        drawn = drawings(comparison)
        check_outputs(drawing_files(drawn, request.figures), remedy=_REMOVE)
        progress(f"figures in {request.figures}")
        remember(*save_drawings(drawn, request.figures))
    if request.html is not None:
        from ppgs.compare.reporting.pictures import case_pictures
        from ppgs.compare.reporting.report import write_report

        progress(f"report {request.html}")
        pictures = case_pictures(
            comparison,
            lambda run: _reference_folders(request, run),
            lambda run: _image_folders(request, run),
        )
        write_report(comparison, pictures, request.html)
        remember(request.html)
