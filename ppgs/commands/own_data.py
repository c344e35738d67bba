"""`prepare --images --labels`: an nnU-Net dataset from a folder of images and a folder of labels."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ppgs.errors import BadInput, Problems
from ppgs.outputs import lies_in, same_place
from ppgs.own_data import RECORD
from ppgs.own_data.naming import parse_names
from ppgs.runs.lock import turn
from ppgs.tasks import DEMO_DATASET, Roots, dataset_id, misunderstood

if TYPE_CHECKING:
    from ppgs.nnunet.preparation.own_data import Ask

# The Decathlon's numbers, and what people number themselves, come first.
_FIRST_ID = 101


@dataclass(frozen=True)
class OwnDataRequest:
    """Request for a dataset made from two folders: its name, and names of channels (`0=CT`) and values (`1=liver`)."""

    images: Path
    labels: Path
    name: str
    dataset_id: int | None = None
    channels: Sequence[str] = ()
    values: Sequence[str] = ()


@dataclass(frozen=True)
class _Checked:
    dataset: str
    channels: Mapping[str, str]
    values: Mapping[str, str]


def make_dataset(
    request: OwnDataRequest,
    roots: Roots,
    report: Callable[[str, int, int], None],
    *,
    geometry: Literal["header", "voxel"] = "header",
    note: Callable[[str], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
    ask: Ask | None = None,
) -> str:
    """Make the raw dataset, or bring it up to date, and return its name.

    Raises `BadInput` or `DatasetError` with everything that is wrong.
    """
    _check(request, roots)
    # Imports nnU-Net, which takes seconds.
    from ppgs.nnunet.host.environment import pool_size, prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.preparation.own_data import Folders, OwnData

    lock = roots.preprocessed / ".ppgs" / "own_data.lock"
    waiting = "waiting for another process that makes a dataset"
    for folder in (roots.raw, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with turn(lock, "the making of a dataset", lambda: report(waiting, 0, 0)):
        # Another process may have taken the number since.
        checked = _check(request, roots)
        folders = Folders(request.images.resolve(), request.labels.resolve(), checked.channels, checked.values)
        data = OwnData(
            folders, roots.raw / checked.dataset, report, note, warn, processes=pool_size(), geometry=geometry
        )
        data.make(ask)
    return checked.dataset


def _check(request: OwnDataRequest, roots: Roots) -> _Checked:
    """Raise `BadInput` for mistakes that show without listing or reading files."""
    problems = Problems()
    is_there = [_check_folder(option, folder, problems) for option, folder in _folders(request)]
    if all(is_there):
        _check_apart(request, roots, problems)
    channels = parse_names(request.channels, "--channel", problems.found)
    values = parse_names(request.values, "--label", problems.found)
    dataset = _dataset_of(request, roots, problems)
    problems.raise_as(BadInput, f"{len(problems.found)} problems with the options")
    return _Checked(dataset, channels, values)


def _folders(request: OwnDataRequest) -> tuple[tuple[str, Path], tuple[str, Path]]:
    return ("--images", request.images), ("--labels", request.labels)


def _check_folder(option: str, folder: Path, problems: Problems) -> bool:
    if folder.is_dir():
        return True
    if folder.is_file():
        problems.add("this is a file, not a folder", folder, f"give the folder: {option} {folder.parent}")
    else:
        problems.add(f"there is no such folder ({option})", folder, "correct the path")
    return False


def _check_apart(request: OwnDataRequest, roots: Roots, problems: Problems) -> None:
    images, labels = request.images, request.labels
    if same_place(images, labels):
        remedy = "put the labels into a folder of their own"
        problems.add("images and labels are the same folder: which file is what?", images, remedy)
    elif lies_in(labels, images):
        remedy = f"move the images into a folder of their own, beside {labels.name}"
        problems.add("the labels' folder is inside the images' folder", labels, remedy)
    elif lies_in(images, labels):
        remedy = f"move the labels into a folder of their own, beside {images.name}"
        problems.add("the images' folder is inside the labels' folder", images, remedy)
    for name, root in roots.folders.items():
        for option, folder in _folders(request):
            if lies_in(root, folder):
                problems.add(f"{name} would lie in the folder of {option}", root, "choose another --root")


def _dataset_of(request: OwnDataRequest, roots: Roots, problems: Problems) -> str:
    """Return the dataset's name with its number: the one used for the same folders before, or a free one."""
    wanted, known = request.dataset_id, roots.datasets()
    used = (*known, DEMO_DATASET)
    if not re.fullmatch(r"\w[\w.-]*", request.name):
        suggested = re.sub(r"[^\w.-]+", "_", request.name).strip("_.-") or "MyData"
        problems.add(f"'{request.name}' cannot name a dataset", "--name", f"use letters, digits, _ . -: {suggested}")
        return ""
    if match := re.fullmatch(r"Dataset(\d{3,})_(.+)", request.name):
        problems.add("the number does not belong to the name", "--name", f"--name {match[2]} --id {int(match[1])}")
        return ""
    same = [name for name in known if name.split("_", 1)[1] == request.name]
    made = {name: record for name in same if (record := _read(roots.raw / name / RECORD)) is not None}
    ours = [name for name, record in made.items() if _is_of(record, request)]
    if ours and wanted in (None, dataset_id(ours[0])):
        return ours[0]
    if ours:
        problems.add(
            f"these folders are {ours[0]} already", "--id", "leave --id out, or give the new dataset another --name"
        )
    elif same and not (same == [f"Dataset{wanted or 0:03d}_{request.name}"] and not (roots.raw / same[0]).exists()):
        which = made.get(same[0])
        of = f", made from {which['images']} and {which['labels']}" if which is not None else ""
        problems.add(
            f"the name {request.name} is taken by {same[0]}{of}", "--name", "give another --name, or another --root"
        )
    elif (meaning := misunderstood(request.name)) is not None:
        match = re.fullmatch(r"Task0*(\d*)_(.+)", request.name)
        remedy = f"My{request.name.capitalize()}"
        if match is not None:
            remedy = f"{match[2]}{f' --id {match[1]}' if match[1] else ''}"
        problems.add(
            f"'{request.name}' cannot name a dataset: as a task it means {meaning}", "--name", f"--name {remedy}"
        )
    elif taken := [n for n in used if dataset_id(n) == wanted and n not in same]:
        problems.add(f"the number {wanted} is taken by {taken[0]}", "--id", "leave --id out: a free one is chosen")
    # nnU-Net finds a number by how names begin: 101 would be Dataset1014, too.
    free = next(n for n in itertools.count(_FIRST_ID) if not any(name.startswith(f"Dataset{n:03d}") for name in used))
    return f"Dataset{wanted or free:03d}_{request.name}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"images", "labels"} <= found.keys() else None


def _is_of(record: Mapping[str, Any], request: OwnDataRequest) -> bool:
    return (record["images"], record["labels"]) == (str(request.images.resolve()), str(request.labels.resolve()))
