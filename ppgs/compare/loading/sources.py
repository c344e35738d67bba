"""RUN arguments of `compare`: our runs, nnU-Net's folders of any level, folders of predictions.

Path logic alone: opens no result.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from ppgs.errors import BadInput, NoSuchRun, PpgsError, Problems, nearest
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.registry import find_run_or_model
from ppgs.tasks import is_dataset_name

_FOLD = re.compile(r"fold_(\d{1,4}|all)")
# Folders below a folder of predictions that hold none: pictures of `predict --overlay`, results of folds, data.
_NO_PREDICTIONS = re.compile(rf"\..*|overlays|{_FOLD.pattern}|nnUNet_\w+|(images|labels)T[rs]")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Place:
    """The place of one training of one task: folders of folds, or one folder of predictions."""

    path: Path
    training: str
    task: str | None = None
    folds: tuple[tuple[str, Path], ...] = ()
    run_name: str | None = None
    # The argument, unless it gave several places.
    given: str | None = None

    @property
    def is_predictions(self) -> bool:
        return not self.folds

    @property
    def name(self) -> str:
        return self.run_name or self.training


def find_places(given: Sequence[str], results: Path, only: Iterable[str] = ()) -> list[Place]:
    """Find all trainings of the arguments, in their order, with distinct names.

    Raises `NoSuchRun` for a name that no run has, `BadInput` for folders without results; all together.
    """
    problems = Problems()
    kind: type[PpgsError] = BadInput
    places: list[Place] = []
    for argument in given:
        try:
            found = _expand(argument, results)
        except NoSuchRun as error:
            kind = NoSuchRun
            problems.found += error.problems
            continue
        except BadInput as error:
            problems.found += error.problems
            continue
        places += [replace(found[0], given=argument)] if len(found) == 1 else found
    problems.raise_as(kind, f"{len(problems.found)} of {len(given)} arguments cannot be compared")
    patterns = tuple(only)
    if patterns:
        kept = [p for p in places if any(_matches(p.training, pattern) for pattern in patterns)]
        if not kept:
            hint = nearest(patterns[0], sorted({p.training for p in places}))
            raise BadInput(f"no training matches {', '.join(patterns)}", "--only", hint)
        places = kept
    # Where one folder's path names the dataset and another's does not, they are results of the same.
    if len(tasks := {place.task for place in places} - {None}) == 1:
        places = [replace(place, task=next(iter(tasks))) for place in places]
    seen: dict[tuple[Path, tuple[str, ...]], str] = {}
    for place in places:
        key = (place.path.resolve(), tuple(name for name, _ in place.folds))
        if key in seen:
            raise BadInput("the same results are given twice", place.path, "give each run once")
        seen[key] = place.name
    return _distinct(places)


def _matches(training: str, pattern: str) -> bool:
    """Return whether the pattern fits the whole name or one of its parts `TRAINER__PLANS__CONFIGURATION`."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in (training, *training.split("__")))


def _expand(argument: str, results: Path) -> list[Place]:
    path = Path(argument)
    if not path.is_dir():
        if path.is_file():
            raise BadInput("a RUN is a folder or the name of a run, not a file", argument, f"give {path.parent}")
        named = find_run_or_model(argument, results)
        return [_fold_place(named.path)] if isinstance(named, RunFolder) else _model(named)
    # Without `..`, whose names would be those of other folders; links stay, but for one that a `..` leads out of.
    folded = Path(os.path.abspath(path))  # noqa: PTH100
    path = folded if folded.is_dir() and folded.samefile(path) else path.resolve()
    # The folder that a user sees results in may lie inside the fold's.
    if path.name in ("ppgs", "validation") and _FOLD.fullmatch(path.parent.name):
        path = path.parent
    if _FOLD.fullmatch(path.name):
        return [_fold_place(path)]
    for look in (_model, _models_of_dataset, _datasets):
        if found := look(path):
            return found
    if (path / "summary.json").is_file() or next(image_files(path), None):
        return [Place(path, path.name, _task_of(path))]
    raise BadInput(
        "this folder contains no results",
        argument,
        "give a run, fold, TRAINER__PLANS__CONFIGURATION or dataset folder, nnUNet_results, or a folder of predictions",
    )


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder or, if it has none, of the folders below it, as `predict --recursive` writes them.

    Hidden files such as a Mac's `._case.nii.gz`, pictures, results of folds and nnU-Net's data are left out.
    """
    if images := [file for file in sorted(folder.iterdir()) if _is_image(file)]:
        yield from images
        return
    for place, below, names in os.walk(folder):
        below[:] = sorted(f for f in below if not _NO_PREDICTIONS.fullmatch(f))
        yield from (file for name in sorted(names) if _is_image(file := Path(place, name)))


def _is_image(file: Path) -> bool:
    return file.name.lower().endswith(IMAGE_ENDINGS) and not file.name.startswith(".") and file.is_file()


def _task_of(path: Path) -> str | None:
    return next((part for part in reversed(path.absolute().parts) if is_dataset_name(part)), None)


def _fold_place(path: Path) -> Place:
    name = path.name.removeprefix("fold_")
    run = RunFolder(path)
    run_name = None
    # The results of a run whose manifest is damaged can still be compared; loading says what is wrong with it.
    with suppress(PpgsError):
        run_name = read_manifest(run).name if run.manifest.exists() else None
    return Place(path, path.parent.name, _task_of(path), ((name, path),), run_name)


def _model(path: Path) -> list[Place]:
    folds = sorted(
        ((match[1], child) for child in path.iterdir() if (match := _FOLD.fullmatch(child.name)) and child.is_dir()),
        key=lambda fold: (fold[0] == "all", fold[0].zfill(4)),
    )
    numbered = tuple(fold for fold in folds if fold[0] != "all")
    # fold_all is another model, judged on its own training cases; it never mixes with cross-validation.
    chosen = numbered or tuple(folds)
    return [Place(path, path.name, _task_of(path), chosen)] if chosen else []


def _children(path: Path, look: Callable[[Path], list[Place]], wanted: Callable[[str], bool]) -> list[Place]:
    children = sorted(child for child in path.iterdir() if child.is_dir() and wanted(child.name))
    return [place for child in children for place in look(child)]


def _models_of_dataset(path: Path) -> list[Place]:
    return _children(path, _model, lambda name: "__" in name)


def _datasets(path: Path) -> list[Place]:
    inside = path / "nnUNet_results"
    return _children(path, _models_of_dataset, is_dataset_name) or (
        _children(inside, _models_of_dataset, is_dataset_name) if inside.is_dir() else []
    )


def _distinct(places: list[Place]) -> list[Place]:
    """Make the names of a task's places distinct: add the fold, else the differing parts of their paths."""
    places = list(places)
    for group in _clashes(places):
        for i in group:
            if _FOLD.fullmatch(places[i].path.name):
                places[i] = replace(places[i], training=f"{places[i].training}/fold_{places[i].folds[0][0]}")
    for group in _clashes(places):
        roots = [_root(places[i]) for i in group]
        common = next((n for n, parts in enumerate(zip_longest(*roots)) if len(set(parts)) > 1), len(roots[0]))
        lengths = range(1, max(map(len, roots)) - common + 1)
        told = next((n for n in lengths if len({root[common : common + n] for root in roots}) == len(roots)), 1)
        for i, root in zip(group, roots, strict=True):
            places[i] = replace(places[i], training="/".join((*root[common : common + told], places[i].training)))
    names: dict[tuple[str | None, str], int] = {}
    for place in places:
        names[place.task, place.name] = names.get((place.task, place.name), 0) + 1
    # Two runs may bear one name when they lie under different roots.
    return [replace(p, run_name=None) if names[p.task, p.name] > 1 else p for p in places]


def _clashes(places: list[Place]) -> list[list[int]]:
    by_name: dict[tuple[str | None, str], list[int]] = {}
    for index, place in enumerate(places):
        by_name.setdefault((place.task, place.training), []).append(index)
    return [group for group in by_name.values() if len(group) > 1]


def _root(place: Place) -> tuple[str, ...]:
    parts = place.path.absolute().parts
    return parts[: parts.index(place.task)] if place.task in parts else parts[:-1]


def short_labels(names: Sequence[str]) -> dict[str, str]:
    """Shorten names by the `__` parts that all of them share, to distinguish trainings in a table."""
    split = {name: re.split(r"__", name) for name in names}
    parts = list(split.values())
    if len(parts) < 2 or len({len(p) for p in parts}) != 1:
        return {name: name for name in names}
    differing = [i for i in range(len(parts[0])) if len({p[i] for p in parts}) > 1]
    labels = {name: "__".join(p[i] for i in differing) or name for name, p in split.items()}
    prefix = "nnUNetTrainerPPGS_"
    if all(label.startswith(prefix) for label in labels.values()):
        labels = {name: label.removeprefix(prefix) for name, label in labels.items()}
    return labels


def choose_baseline(wanted: str | None, places: Sequence[Place]) -> str:
    """Choose the training that the others are compared with: the first, or the one named by `--baseline`.

    It may be named as given, by its training, run, short label, a part of `TRAINER__PLANS__CONFIGURATION`, or folder.
    """
    if wanted is None:
        return places[0].training
    trainings = list(dict.fromkeys(p.training for p in places))
    labels = short_labels(trainings)
    for place in places:
        if wanted in (place.given, place.training, place.run_name, labels[place.training]) or (
            Path(wanted).is_dir() and Path(wanted).resolve() == place.path.resolve()
        ):
            return place.training
    parts = [t for t in trainings if _matches(t, wanted)]
    if len(parts) == 1:
        return parts[0]
    if parts:
        raise BadInput(f"'{wanted}' fits several trainings: {', '.join(parts)}", "--baseline", "give the whole name")
    raise BadInput(f"no training is called '{wanted}'", "--baseline", nearest(wanted, [*labels.values()]))
