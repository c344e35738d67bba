"""Resolution of TASK arguments, and nnU-Net's three folders. Path logic only: reads no images."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppgs import shipped
from ppgs.errors import BadInput, DatasetError, PathUnusable, nearest, nearest_name

DEMO = "demo"
DEMO_DATASET = "Dataset999_Demo"

_DECATHLON = re.compile(r"Task(\d{1,3})_([A-Za-z0-9-]+)")
# nnU-Net writes the number with three digits, from 1000 on with more. Names that a kill left behind while a dataset was
# made are excluded: earlier versions did not hide them.
_NNUNET = re.compile(r"Dataset(\d{3}|[1-9]\d{3,})_(?!.*\.part-\d+-[0-9a-f]{8}$)(\w[\w.-]*)")
_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True)
class Roots:
    """nnU-Net's three folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def under(cls, root: Path) -> Roots:
        return cls(*(root.absolute() / name for name in _FOLDERS))

    @classmethod
    def choose(cls, root: Path | None, environ: Mapping[str, str]) -> Roots:
        """Return `--root` if given, else nnU-Net's environment variables if they are set, else `./ppgs_data`.

        Raises `BadInput` if `--root` is a file, or if only one or two of the three variables are set: guessing the
        others would put data in unexpected places.
        """
        if root is not None:
            if root.exists() and not root.is_dir():
                raise BadInput("--root is a file", root, "give a folder with nnU-Net's three folders")
            require_text(root)
            return cls.under(root)
        if not (missing := [name for name in _FOLDERS if not environ.get(name)]):
            return cls(*(Path(environ[name]).absolute() for name in _FOLDERS))
        if given := [name for name in _FOLDERS if environ.get(name)]:
            raise BadInput(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set, {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not",
                "environment variables",
                "set all three, or give --root DIR with all three folders",
            )
        return cls.under(Path("ppgs_data"))

    @property
    def folders(self) -> dict[str, Path]:
        """The three folders by the environment variables from which nnU-Net reads them."""
        return dict(zip(_FOLDERS, (self.raw, self.preprocessed, self.results), strict=True))

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(folder) for name, folder in self.folders.items()}

    def datasets(self) -> list[str]:
        """Return the names of all datasets in any of the three folders."""
        folders = (f for root in self.folders.values() if root.is_dir() for f in root.iterdir())
        return sorted({f.name for f in folders if f.is_dir() and is_dataset_name(f.name)})


def is_dataset_name(name: str) -> bool:
    """Return whether nnU-Net takes a folder of this name for a dataset."""
    return _NNUNET.fullmatch(name) is not None


def dataset_id(dataset: str) -> int:
    """Return the number in the name of an nnU-Net dataset."""
    return int(dataset[len("Dataset") :].split("_", 1)[0])


@dataclass(frozen=True)
class Task:
    """A task: the name given, nnU-Net's name of the dataset, and its source."""

    given: str
    dataset: str
    kind: Literal["demo", "decathlon", "nnunet"]
    source: Path | None = None

    @property
    def dataset_id(self) -> int:
        return dataset_id(self.dataset)

    @property
    def short_name(self) -> str:
        """The part of run names: `demo`, or the part of the dataset's name after its number."""
        return DEMO if self.kind == "demo" else self.dataset.split("_", 1)[1]


def misunderstood(name: str) -> str | None:
    """Return what TASK means if it has this name, which then cannot name a dataset; None if it can."""
    if name in (DEMO, DEMO_DATASET):
        return "the built-in demo"
    if name.isdecimal():
        return "the number of a dataset"
    return "a task of the Decathlon" if _DECATHLON.fullmatch(name) else None


def require_text(path: Path) -> None:
    """Raise `BadInput` for a path that is not UTF-8, which neither JSON nor image libraries take."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise BadInput("the folder's name is not UTF-8", path, "rename it") from None


def resolve_task(given: str, roots: Roots) -> Task:
    """Resolve TASK: `demo`, a Decathlon folder, or an nnU-Net dataset's id, name or raw folder.

    The bare name of a Decathlon task, or a dataset's name without its number, works if its data are known.

    Raises `DatasetError` when there is no such task, naming the available ones.
    """
    if given in (DEMO, DEMO_DATASET):
        return Task(DEMO, DEMO_DATASET, "demo")
    path = Path(given)
    require_text(path)
    if is_dataset_name(given) or (given.isdecimal() and len(given) < 10):
        return _known(given, roots)
    match = _DECATHLON.fullmatch(given)
    # Also beside a folder of this name, such as the one that the dataset was made of.
    if match is None and len(named := [name for name in roots.datasets() if name.split("_", 1)[1] == given]) == 1:
        return Task(given, named[0], "nnunet")
    if path.is_dir():
        return _from_folder(given, path, roots)
    if match is not None and (dataset := _dataset_name(match)) in roots.datasets():
        return Task(given, dataset, "nnunet")
    if "/" in given or path.suffix or match is not None:
        remedy = "give the folder with dataset.json and imagesTr"
        if (public := nearest_name(path.name, shipped.tasks())) is not None:
            remedy += f", or fetch it: ppgs prepare --download {path.with_name(public)}"
            if public != path.name:
                remedy = f"did you mean '{public}'? {remedy}"
        raise DatasetError("there is no such folder", given, remedy)
    _check_readable(roots)
    hint = _misnamed(given, roots) or nearest(given, [DEMO, *roots.datasets()])
    if hint.startswith("known:"):
        hint += "; data of your own: ppgs prepare --images DIR --labels DIR --name NAME"
    raise DatasetError(f"there is no task '{given}'", f"datasets in {roots.raw.parent}", hint)


def shortest_name(dataset: str, roots: Roots) -> str:
    """Return the dataset's name without its number, or with it if TASK would mean something else otherwise."""
    short = dataset.partition("_")[2]
    try:
        return short if resolve_task(short, roots).dataset == dataset else dataset
    except BadInput:
        return dataset


def _check_readable(roots: Roots) -> None:
    """Raise `PathUnusable` where a dataset that was not found may be in a folder that cannot be read."""
    for folder in (roots.raw, roots.preprocessed):
        PathUnusable.check_folder(folder)


def _dataset_name(decathlon: re.Match[str]) -> str:
    return f"Dataset{int(decathlon[1]):03d}_{decathlon[2]}"


def _known(given: str, roots: Roots) -> Task:
    names = roots.datasets()
    if given.isdecimal():
        matches = [n for n in names if dataset_id(n) == int(given)]
        if len(matches) > 1:
            raise DatasetError(f"dataset id {given} is ambiguous: {', '.join(matches)}", roots.raw, "give the name")
    else:
        matches = [given] if given in names else []
    if not matches:
        _check_readable(roots)
        hint = nearest(given, names) if names else "convert it first, or give --root"
        if (roots.raw / "imagesTr").is_dir():
            hint = f"nnUNet_raw is a dataset itself; it should be the folder around it: {roots.raw.parent}"
        hint = _misnamed(given, roots) or hint
        raise DatasetError(f"there is no nnU-Net dataset '{given}'", roots.raw, hint)
    if matches[0] == DEMO_DATASET:
        return Task(DEMO, DEMO_DATASET, "demo")
    return Task(given, matches[0], "nnunet")


def _misnamed(given: str, roots: Roots) -> str:
    """Return the remedy if the intended dataset is in nnUNet_raw under a name or type that nnU-Net cannot use."""
    try:
        names = sorted(path.name for path in roots.raw.iterdir())
    except OSError:
        return ""
    for name in names:
        match = re.fullmatch(r"dataset[ _-]?(\d+)[ _-]*(.*)", name, re.IGNORECASE)
        if match is None or not (name == given or (given.isdecimal() and int(given) == int(match[1]))):
            continue
        path = roots.raw / name
        if is_dataset_name(name):
            kind = "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file, not a folder"
            return f"{name} is {kind}: restore the folder" if not path.is_dir() else ""
        rest = re.sub(r"[^\w.-]+", "_", match[2]).strip("_") or "Name"
        return f"nnU-Net cannot use the folder's name '{name}': rename it to Dataset{int(match[1]):03d}_{rest}"
    return ""


def _from_folder(given: str, path: Path, roots: Roots) -> Task:
    """Resolve a folder, which may be a link: its own name or that of the folder it leads to names the task."""
    folder = path.resolve()
    names = [path.absolute().name, folder.name]
    places = [roots.raw / name for name in names if is_dataset_name(name)]
    for place in places:
        if place.is_dir() and place.samefile(folder):
            return Task(given, place.name, "nnunet")
    if places:
        raise DatasetError("an nnU-Net dataset must lie in nnUNet_raw", folder, _linking(folder, places[0]))
    match = next(filter(None, map(_DECATHLON.fullmatch, names)), None)
    if match is None:
        raise DatasetError(
            f"the folder's name '{folder.name}' is no task name",
            folder,
            "name it TaskNN_Name (MSD) or DatasetNNN_Name if it has dataset.json; make a dataset of images and labels "
            f"alone with: ppgs prepare --images {folder.name}/IMAGES --labels {folder.name}/LABELS --name NAME",
        )
    return _decathlon(given, match, folder, roots)


def decathlon_to_come(given: str, roots: Roots) -> Task | None:
    """Resolve the folder of a Decathlon task that need not exist yet; None if its name is none of a task.

    Raises `DatasetError` if the dataset's number is taken.
    """
    path = Path(given)
    require_text(path)
    match = _DECATHLON.fullmatch(path.name)
    return None if match is None else _decathlon(given, match, path.resolve(), roots)


def _decathlon(given: str, match: re.Match[str], folder: Path, roots: Roots) -> Task:
    dataset = _dataset_name(match)
    taken = [n for n in roots.datasets() if dataset_id(n) == dataset_id(dataset) and n != dataset]
    if taken:
        raise DatasetError(
            f"dataset id {int(match[1])} is taken by {taken[0]}",
            folder,
            "rename the folder to another number, or --root",
        )
    return Task(given, dataset, "decathlon", folder)


def _linking(folder: Path, place: Path) -> str:
    if place.exists() or place.is_symlink():
        return f"{place} is something else: rename one of them"
    raw = "" if place.parent.is_dir() else f"{shlex.join(['mkdir', '-p', str(place.parent)])} && "
    return f"link it: {raw}{shlex.join(['ln', '-s', str(folder), str(place)])}"


def parse_folds(text: str) -> list[int | str]:
    """Parse `0`, `0,2`, `0-4` or `all` as a list of folds; raises `BadInput`."""
    if text == "all":
        return ["all"]
    folds: list[int | str] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise BadInput(f"'{text}' is no list of folds", "--fold", "use 0, 0,2, 0-4 or all")
        folds += [f for f in range(int(match[1]), int(match[2] or match[1]) + 1) if f not in folds]
    return folds
