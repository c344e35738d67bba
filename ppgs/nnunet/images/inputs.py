"""Images of an input: a folder, one image, a pattern such as `scans/*/ct.nii.gz`, or a list."""

from __future__ import annotations

import glob
from pathlib import Path

from ppgs.doctor.nearby import absence
from ppgs.errors import BadInput, DatasetError, PpgsError, Problems
from ppgs.nnunet.images.find import Found, Image, Skipped, find_images, name_of, one_image, placed
from ppgs.nnunet.images.listed import read_list

_LISTS = (".csv", ".json")


def find_inputs(source: Path, channels: int, ending: str, *, recursive: bool = False) -> Found:
    """Find the images of an input; raises `BadInput` where there is none, otherwise as `find_images` and `read_list`.

    What exists under the name is never taken for a pattern.
    """
    if source.is_file() and source.suffix.lower() in _LISTS:
        return Found(read_list(source, channels, ending), [])
    if source.exists():
        return find_images(source, channels, ending, recursive=recursive)
    if not glob.has_magic(str(source)):
        dead = f"this is {absence(source)}" if source.is_symlink() else ""
        raise BadInput(
            dead or "there is no such file or folder",
            source,
            "give an image, a folder of images, a pattern or a list with -i",
        )
    return _matching(source, channels, ending, recursive=recursive)


def _matching(pattern: Path, channels: int, ending: str, *, recursive: bool) -> Found:
    """Return the images that match a pattern, and those in matching folders.

    Their names keep the path below the last folder that the pattern spells out.
    """
    root = Path(*_spelled_out(pattern))
    # Path.glob takes no absolute patterns.
    matches = sorted(Path(path) for path in glob.iglob(str(pattern), recursive=True))  # noqa: PTH207
    if not matches:
        raise BadInput("no file or folder matches this pattern", pattern, "give another one, in quotes")
    images: dict[tuple[Path, ...], Image] = {}
    skipped: dict[Path, Skipped] = {}
    problems, seen = Problems(), set[tuple[Path, str, bool]]()
    for match in matches:
        try:
            if match.is_dir():
                # `**` matches every folder as well as the files in it.
                if "**" in pattern.parts:
                    continue
                found = find_images(match, channels, ending, recursive=recursive)
            elif not match.name.endswith(ending):
                skipped[match] = Skipped(match, f"the model reads {ending} files")
                continue
            else:
                name, number = name_of(match, channels, ending)
                # Every channel of an image may match.
                if (one := (match.parent, name, number is None)) in seen:
                    continue
                seen.add(one)
                found = one_image(match, channels, ending)
        except PpgsError as error:
            problems.found += error.problems
            continue
        folder = match if match.is_dir() else match.parent
        images.update({image.files: placed(image, folder, root) for image in found.images})
        skipped.update({each.file: each for each in found.skipped})
    problems.raise_as(DatasetError, f"{len(problems.found)} matches of the pattern cannot be segmented")
    # A label or segmentation beside its image, as in a folder that is given as such.
    images = {files: image for files, image in images.items() if skipped.keys().isdisjoint(files)}
    if not images:
        raise DatasetError(f"the pattern matches no {ending} images", pattern, f"the model reads {ending} files")
    searched = root if recursive or "**" in pattern.parts else None
    return Found(
        sorted(images.values(), key=lambda image: image.name), sorted(skipped.values(), key=lambda s: s.file), searched
    )


def _spelled_out(pattern: Path) -> list[str]:
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts
