"""Looks at every raw image and label before anything is made of them, and names all that is wrong at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from numpy.typing import NDArray

from ppgs.errors import DatasetError, Problem, Problems
from ppgs.nnunet.nifti import check_nifti
from ppgs.plans import Dataset, check_name, load_dataset, read_json

MINIMUM_CASES = 5
_GET_ANEW = "truncated or damaged: get the file anew"
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Case:
    """One training case: its image files (one a channel, or one four-dimensional file) and its label file."""

    name: str
    images: tuple[Path, ...]
    label: Path


def decathlon_cases(folder: Path, problems: Problems) -> list[Case]:
    """Cases of a Decathlon folder; labels or images that lack their counterpart are problems."""
    images, labels = folder / "imagesTr", folder / "labelsTr"
    for part in (images, labels):
        if not part.is_dir():
            problems.add(f"the folder has no {part.name}", folder, "give the folder as the Decathlon's archive has it")
            return []
    names = {p.name for p in _visible(images)}
    labelled = {p.name for p in _visible(labels)}
    for name in sorted(names - labelled):
        problems.add(f"the label of {name} is missing", labels / name, "add it, or move the image to imagesTs")
    for name in sorted(labelled - names):
        problems.add(f"the image of {name} is missing", images / name, "add it, or remove the label")
    return [Case(n.removesuffix(".nii.gz"), (images / n,), labels / n) for n in sorted(names & labelled)]


def _visible(folder: Path) -> Iterator[Path]:
    return (p for p in folder.glob("*.nii.gz") if not p.name.startswith((".", "_")))


def nnunet_cases(folder: Path, dataset: Dataset, problems: Problems) -> list[Case]:
    """Cases of a raw nnU-Net dataset, with as many channels as its `dataset.json` names."""
    listed = read_json(folder / "dataset.json").get("dataset")
    if isinstance(listed, dict):
        for name in listed:
            check_name(name, folder / "dataset.json")
        return [
            Case(name, tuple((folder / i).resolve() for i in entry["images"]), (folder / entry["label"]).resolve())
            for name, entry in sorted(listed.items())
        ]
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(dataset.file_ending)}")
    channels: dict[str, list[Path]] = {}
    if (folder / "imagesTr").is_dir():
        for path in sorted((folder / "imagesTr").iterdir()):
            match = pattern.fullmatch(path.name)
            if match is not None:
                channels.setdefault(match[1], []).append(path)
    cases = []
    for name, images in sorted(channels.items()):
        label = folder / "labelsTr" / f"{name}{dataset.file_ending}"
        if not label.is_file():
            problems.add(f"the label of {name} is missing", label, "add it, or move the image to imagesTs")
            continue
        if len(images) != len(dataset.channels):
            problems.add(
                f"{name} has {len(images)} channels, dataset.json names {len(dataset.channels)}", images[0].parent
            )
            continue
        cases.append(Case(name, tuple(images), label))
    return cases


@dataclass(frozen=True)
class CaseFacts:
    """What one readable case looks like: shape (z, y, x), spacing in mm, orientation where the format has one, a digest
    of the image's voxels, voxels by label value, and whether all voxels of a channel are equal."""

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...] | None
    digest: str
    counts: dict[int, int]
    is_constant: bool
    is_misplaced: bool


@dataclass
class Examination:
    """What there is in a raw folder, and all that is wrong with it."""

    dataset: Dataset
    cases: list[Case]
    problems: Problems
    facts: list[CaseFacts]
    read: _Reader


def check_raw(folder: Path, *, decathlon: bool, report: Report, threads: int) -> list[Case]:
    """All cases of a raw folder, each read once.

    Raises `DatasetError` with every missing label, unreadable file, shape or spacing that differs, voxel that is not
    finite and label value that `dataset.json` does not name; `PlansError` when `dataset.json` itself is wrong.
    """
    found = examine_raw(folder, decathlon=decathlon, report=report, threads=threads, facts=False)
    found.problems.raise_as(DatasetError, f"{len(found.problems.found)} problems in {folder.name}")
    return found.cases


def examine_raw(folder: Path, *, decathlon: bool, report: Report, threads: int, facts: bool) -> Examination:
    """As `check_raw`, but with the problems as a result, and with `facts` about every readable case.

    Raises `PlansError` when `dataset.json` itself is wrong.
    """
    dataset = load_dataset(folder / "dataset.json")
    problems = Problems()
    cases = decathlon_cases(folder, problems) if decathlon else nnunet_cases(folder, dataset, problems)
    if not cases and not problems.found:
        problems.add("there are no training images", folder / "imagesTr", "is this the right folder?")
    elif len(cases) < MINIMUM_CASES and not problems.found:
        problems.add(
            f"{len(cases)} cases are too few for nnU-Net's five-fold cross-validation", folder, "five are needed"
        )
    read: _Reader = _read_decathlon if decathlon or not cases else _nnunet_reader(folder, cases[0])
    collected: list[CaseFacts] = []
    if cases:
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(_check_case, case, dataset, read, facts) for case in cases]
            for done, future in enumerate(as_completed(waiting), 1):
                wrong, known = future.result()
                problems.found += wrong
                collected += [known] if known is not None else []
                report(done, len(cases))
    problems.found.sort(key=lambda p: p.where)
    return Examination(dataset, cases, problems, sorted(collected, key=lambda f: f.name), read)


@dataclass(frozen=True)
class _Image:
    """Voxels (channel, z, y, x), spacing (z, y, x) in mm, and origin and direction where the reader tells them."""

    voxels: NDArray[np.generic]
    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None

    @property
    def digest(self) -> str:
        """A hash of shape and voxels: equal images have equal digests, however they are stored."""
        content = np.ascontiguousarray(self.voxels)
        made = hashlib.blake2b(f"{content.shape} {content.dtype}".encode(), digest_size=16)
        made.update(content.data.cast("B"))
        return made.hexdigest()


_Reader = Callable[[tuple[Path, ...], bool], _Image]


def _nnunet_reader(folder: Path, example: Case) -> _Reader:
    kind = determine_reader_writer_from_dataset_json(
        read_json(folder / "dataset.json"), str(example.images[0]), verbose=False
    )

    def read(paths: tuple[Path, ...], is_label: bool) -> _Image:
        reader = kind()
        voxels, properties = reader.read_seg(str(paths[0])) if is_label else reader.read_images([str(p) for p in paths])
        place = properties.get("sitk_stuff", {})
        return _Image(voxels, tuple(properties["spacing"]), place.get("origin"), place.get("direction"))

    return read


def _read_decathlon(paths: tuple[Path, ...], _: bool) -> _Image:
    image = sitk.ReadImage(str(paths[0]))
    voxels = sitk.GetArrayFromImage(image)
    four, axes = voxels.ndim == 4, image.GetDimension()
    direction = tuple(
        image.GetDirection()[axes * row + column] for row in range(min(axes, 3)) for column in range(min(axes, 3))
    )
    spacing = tuple(image.GetSpacing()[2::-1])
    return _Image(voxels if four else voxels[None], spacing, tuple(image.GetOrigin()[:3]), direction)


def _check_case(case: Case, dataset: Dataset, read: _Reader, facts: bool) -> tuple[list[Problem], CaseFacts | None]:
    found: list[Problem] = []
    parts: list[_Image | None] = []
    for paths, is_label in ((case.images, False), ((case.label,), True)):
        unusable = [problem for path in paths if (problem := check_nifti(path)) is not None]
        if unusable:
            found += unusable
            parts.append(None)
            continue
        try:
            parts.append(read(paths, is_label))
        except Exception as error:  # every reader raises its own kinds
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            found.append(
                Problem(
                    f"cannot be read: {reason[-160:]}", str(paths[0]), "the file is truncated or damaged: get it anew"
                )
            )
            parts.append(None)
    image, label = parts
    if image is not None:
        if len(image.voxels) != len(dataset.channels):
            found.append(
                Problem(
                    f"{len(image.voxels)} channels, dataset.json names {len(dataset.channels)}", str(case.images[0])
                )
            )
        if not np.isfinite(image.voxels).all():
            found.append(
                Problem("NaN or infinite voxels", str(case.images[0]), "replace them by a value that suits the image")
            )
    if label is not None:
        values, counts = np.unique(label.voxels, return_counts=True)
        strange = [v for v in values.tolist() if v not in dataset.values]
        if strange:
            found.append(
                Problem(
                    f"label values {', '.join(f'{v:g}' for v in strange[:5])} are not in dataset.json",
                    str(case.label),
                    f"known values: {', '.join(map(str, sorted(dataset.values)))}",
                )
            )
    if image is not None and label is not None:
        shapes = image.voxels.shape[1:], label.voxels.shape[1:]
        if shapes[0] != shapes[1]:
            found.append(
                Problem(
                    f"the label's shape {_shape(shapes[1])} is not the image's {_shape(shapes[0])}",
                    str(case.label),
                    "is it another image's label?",
                )
            )
        elif not np.allclose(image.spacing, label.spacing, rtol=1e-3):
            found.append(
                Problem(f"the label's spacing {label.spacing} is not the image's {image.spacing}", str(case.label))
            )
    if not facts or image is None or label is None:
        return found, None
    flat = image.voxels.reshape(len(image.voxels), -1)
    return found, CaseFacts(
        name=case.name,
        shape=image.voxels.shape[1:],
        spacing=image.spacing,
        direction=image.direction,
        digest=image.digest,
        counts={int(v): int(n) for v, n in zip(values, counts, strict=True) if v in dataset.values},
        is_constant=bool((flat == flat[:, :1]).all(axis=1).any()),
        is_misplaced=not (_near(image.origin, label.origin) and _near(image.direction, label.direction)),
    )


def _near(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    return a is None or b is None or (len(a) == len(b) and np.allclose(a, b, atol=1e-2))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
