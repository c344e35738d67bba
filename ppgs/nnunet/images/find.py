"""Discovery of the images to segment in a folder, and the names of images and segmentations.

An image's name depends on its own file name and the model's number of channels, not on what else is in the folder. The
name of an image in a subfolder begins with that folder's path (`patient1/ct`), and so does its segmentation's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ppgs import upstream
from ppgs.doctor.files import is_text
from ppgs.doctor.nearby import absence
from ppgs.errors import BadInput, DatasetError, Problems

# Endings that say that an output is meant as a file, not as a folder.
_OUTPUT_KINDS = "nii|gz|nrrd|nhdr|mha|mhd|hdr|img|png|bmp|tiff?|jpe?g|gif|dcm|npz|npy|pkl|h5|zip|json|txt|csv"
_FILE = re.compile(rf".*\.({_OUTPUT_KINDS})", re.IGNORECASE)
_NOT_TEXT = "its name is not UTF-8, which image libraries need"


@dataclass(frozen=True)
class Image:
    """One image to segment: its name without ending, its channel files in order, or one file with all of them."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Skipped:
    """A file of the input folder that is not segmented, and the reason."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """The images of the input, by name, and the files that are not images.

    `searched` is the folder whose subfolders, at any depth, were searched too.
    """

    images: list[Image]
    skipped: list[Skipped]
    searched: Path | None = None


def kinds_beside(reader: str, *, probabilities: bool) -> tuple[str, ...]:
    """Return the endings of what is written beside a segmentation; `reader` is the name of nnU-Net's reader class.

    These are probabilities and their properties, and the spacing of a TIFF volume, which has no place in the file.
    """
    return (*((".npz", ".pkl") if probabilities else ()), *((".json",) if reader == "Tiff3DIO" else ()))


def find_images(source: Path, channels: int, ending: str, *, recursive: bool = False) -> Found:
    """Find the images of a folder, or one image, named as nnU-Net does (`name_0000`) or the Decathlon (`name`).

    Hidden files and folders are passed over; `recursive` searches the folders below as well. Raises `DatasetError`
    when there are no images, or an image's channels are not the model's.
    """
    if source.is_file():
        return one_image(source, channels, ending)
    problems, images, skipped = Problems(), list[Image](), list[Skipped]()
    folders = list(folders_below(source)) if recursive else [source]
    for folder in folders:
        found, no_images = _in_folder(folder, source, channels, ending, problems)
        images += [placed(image, folder, source) for image in found]
        skipped += no_images
    problems.raise_as(DatasetError, f"{len(problems.found)} images do not have the model's channels")
    if not images:
        others = sorted({"".join(s.file.suffixes) for s in skipped})[:5]
        there = f"; there are {', '.join(others)} files" if any(others) else ""
        remedy = f"the model reads {ending} files"
        if not recursive and any(folders_below(source, depth=1)):
            remedy += "; --recursive searches the folders below too"
        raise DatasetError(f"there are no {ending} images{there}", source, remedy)
    images.sort(key=lambda image: image.name)
    return Found(images, sorted(skipped, key=lambda s: s.file), source if recursive else None)


def placed(image: Image, folder: Path, root: Path) -> Image:
    """Return the image of a folder under a name that begins with the folder's path below `root`."""
    return replace(image, name=(folder.relative_to(root) / image.name).as_posix())


def folders_below(root: Path, depth: int | None = None) -> Iterator[Path]:
    """Yield a folder and those below it except hidden ones; with `depth` 1 only the direct subfolders.

    Links are followed, but not in a circle.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        status = folder.stat()
        if (identity := (status.st_dev, status.st_ino)) in above:
            continue
        below = [f for f in sorted(folder.iterdir()) if not f.name.startswith(".") and f.is_dir()]
        if depth == 1:
            yield from below
            return
        yield folder
        waiting += [(f, above | {identity}) for f in reversed(below)]


def _in_folder(
    folder: Path, root: Path, channels: int, ending: str, problems: Problems
) -> tuple[list[Image], list[Skipped]]:
    files, skipped = [], []
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if not file.is_file():
            skipped.append(Skipped(file, f"it is {absence(file)}"))
        elif not is_text(str(file.relative_to(root))):
            skipped.append(Skipped(file, _NOT_TEXT))
        elif file.name.endswith(ending):
            files.append(file)
        else:
            skipped.append(Skipped(file, f"the model reads {ending} files"))
    images, beside = _grouped(files, channels, ending, folder, problems)
    return images, [*skipped, *beside]


def one_image(file: Path, channels: int, ending: str) -> Found:
    """Find the image that a file belongs to, with its other channels beside it. Raises as `find_images`."""
    if not is_text(file.name):
        raise DatasetError(_NOT_TEXT, file, "rename the file")
    if not file.name.endswith(ending):
        raise DatasetError(f"the model reads {ending} files", file)
    name, number = name_of(file, channels, ending)
    plain = file.with_name(f"{name}{ending}")
    beside = [_beside(plain, file)] if number is not None and plain.is_file() else []
    if channels == 1 or number is None:
        return Found([Image(name, (file,))], beside)
    # One more than the model has, so that it can be reported.
    numbered = [file.with_name(f"{name}_{channel:04d}{ending}") for channel in range(channels + 1)]
    problems = Problems()
    images, _ = _grouped([f for f in numbered if f.is_file()], channels, ending, file, problems)
    problems.raise_as(DatasetError, "")
    return Found(images, beside)


def _beside(plain: Path, numbered: Path) -> Skipped:
    return Skipped(plain, f"beside {numbered.name} it is taken for a label or segmentation of that image")


def _grouped(
    files: Iterable[Path], channels: int, ending: str, where: Path, problems: Problems
) -> tuple[list[Image], list[Skipped]]:
    groups: dict[str, dict[int, Path]] = {}
    plain: dict[str, Path] = {}
    for file in files:
        name, number = name_of(file, channels, ending)
        if number is None:
            plain[name] = file
        else:
            groups.setdefault(name, {})[number] = file
    for name, found in groups.items():
        # Channels that the model does not have: `name_0001` beside `name_0000`, but not `name_2021`.
        more = channels
        while (extra := plain.get(f"{name}_{more:04d}")) is not None and 0 in found:
            found[more] = plain.pop(f"{name}_{more:04d}")
            more += 1
        one_picture = sorted(found) == [0] and extra is None and ending in upstream.PICTURES
        if sorted(found) != list(range(channels)) and not one_picture:
            have = ", ".join(f"{c:04d}" for c in sorted(found))
            wanted = "0000" if channels == 1 else f"0000 to {channels - 1:04d}"
            problems.add(
                f"{name} has channels {have}; the model takes {channels} ({wanted})",
                where,
                "are these images of their own? then add _0000 to each name"
                if channels == 1
                else "a file that holds all channels is named without _0000",
            )
    images = [Image(n, tuple(found[c] for c in sorted(found))) for n, found in groups.items()]
    images += [Image(name, (file,)) for name, file in plain.items() if name not in groups]
    beside = [_beside(file, groups[name][0]) for name, file in plain.items() if name in groups]
    return sorted(images, key=lambda image: image.name), beside


def name_of(file: Path, channels: int, ending: str) -> tuple[str, int | None]:
    """Return the name and channel number; a number that the model has no channel for belongs to the name."""
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name)
    if match is None or int(match[2]) >= channels:
        return file.name.removesuffix(ending), None
    return match[1], int(match[2])


def is_file_target(target: Path, ending: str) -> bool:
    """Return whether the output is a file rather than a folder; raise `BadInput` for an unsupported file."""
    if target.is_dir():
        return False
    if target.name.endswith(ending) and target.name != ending:
        return True
    if _FILE.fullmatch(target.name) or target.is_file():
        stem = re.sub(r"(?i)\.nii\.gz$|\.[^.]*$", "", target.name) or target.name
        raise BadInput(f"the model writes {ending} files", target, f"name the output {stem}{ending}, or give a folder")
    return False
