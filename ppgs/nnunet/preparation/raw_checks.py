"""Checks of every raw image and label before anything is made from them; all problems are reported together.

`train`, `prepare` and `doctor` ask the same: `check_folder` first (`dataset.json`, names, folds), then the images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from numpy.typing import NDArray

from ppgs.doctor.description import check_sides
from ppgs.doctor.files import Case
from ppgs.doctor.findings import Finding, error, files_text, names_text, ok
from ppgs.doctor.folder import FolderCheck
from ppgs.doctor.images import CaseFacts, check_facts
from ppgs.errors import Problem
from ppgs.formatting import counted, patch_text
from ppgs.nnunet.images.geometry import READERS_WITH_GEOMETRY, check_channels, check_label
from ppgs.nnunet.images.nifti import REPLACE, check_nifti
from ppgs.plans import Dataset

Report = Callable[[int, int], None]
Geometry = Literal["header", "voxel"]
# The sum of the squares of a large image's voxels must remain a float32.
_LARGEST = 1e14
_OTHERWISE = "; to train on voxels as they are stored: --geometry voxel"


@dataclass(frozen=True)
class Image:
    """Voxels (channel, z, y, x), spacing (z, y, x) in mm, and the direction if the reader returns it."""

    voxels: NDArray[np.generic]
    spacing: tuple[float, ...]
    direction: tuple[float, ...] | None = None

    @property
    def digest(self) -> str:
        """A hash of shape and voxels: equal images have equal digests, however they are stored."""
        content = np.ascontiguousarray(self.voxels)
        made = hashlib.blake2b(f"{content.shape} {content.dtype}".encode(), digest_size=16)
        made.update(content.data.cast("B"))
        return made.hexdigest()


class Reader:
    """Reads images and labels as nnU-Net does, or a Decathlon folder's."""

    def __init__(self, found: FolderCheck, *, decathlon: bool) -> None:
        self._kind = None if decathlon else _reader_class(found)
        # The reader of a Decathlon folder's files after the conversion.
        self.name = "SimpleITKIO" if self._kind is None else str(self._kind.__name__)

    def remedy(self, ending: str) -> str:
        """Return the remedy if this reader cannot read a file of that ending."""
        if self._kind is None or ending.lower() in (takes := self._kind.supported_file_endings):
            return "if the file is truncated or damaged, get it again"
        return f"{self.name} reads {' '.join(takes)}: remove overwrite_image_reader_writer from dataset.json"

    def read(self, paths: tuple[Path, ...], *, is_label: bool = False) -> Image:
        """Read the channels of one image, or a label."""
        if self._kind is None:
            return _read_decathlon(paths[0])
        reader = self._kind()
        voxels, properties = reader.read_seg(str(paths[0])) if is_label else reader.read_images([str(p) for p in paths])
        return Image(voxels, tuple(properties["spacing"]), properties.get("sitk_stuff", {}).get("direction"))


def _reader_class(found: FolderCheck) -> Any:
    """Return nnU-Net's reader: the first for the file ending; for pictures the first that can read the file."""
    content = found.description.content
    kind = determine_reader_writer_from_dataset_json(content, verbose=False)
    if kind.__name__ in READERS_WITH_GEOMETRY:
        # The reader that nnU-Net would try next misses faults that ITK rejects.
        return kind
    # It prints its attempts, with tracebacks.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        for case in found.cases:
            try:
                return determine_reader_writer_from_dataset_json(content, str(case.images[0]), verbose=False)
            except RuntimeError:
                continue
    return kind


def _read_decathlon(path: Path) -> Image:
    image = sitk.ReadImage(str(path))
    voxels = sitk.GetArrayFromImage(image)
    four, axes = voxels.ndim == 4, image.GetDimension()
    direction = tuple(
        image.GetDirection()[axes * row + column] for row in range(min(axes, 3)) for column in range(min(axes, 3))
    )
    return Image(voxels if four else voxels[None], tuple(image.GetSpacing()[2::-1]), direction)


@dataclass(frozen=True)
class Examination:
    """Result of reading every case: facts about the readable ones, and all findings."""

    facts: list[CaseFacts]
    findings: list[Finding]
    reader: Reader


def examine_images(
    found: FolderCheck,
    *,
    decathlon: bool,
    geometry: Geometry,
    report: Report,
    threads: int,
    origin: Mapping[str, str] | None = None,
) -> Examination | None:
    """Read every case of a checked folder once; None without cases, or if `dataset.json` does not name a format.

    The findings name every file that cannot be read, shape and place that differs, voxel that is not finite and label
    value that `dataset.json` does not name, and what is odd about all cases together. `origin` has the files that users
    know by the paths of those that are links to them.
    """
    dataset = found.description.dataset
    if dataset is None or not found.cases:
        return None
    try:
        reader = Reader(found, decathlon=decathlon)
    except RuntimeError:
        # No reader for this file_ending, which is among the folder's findings.
        return None
    facts: list[CaseFacts] = []
    wrong: list[tuple[str, str, Problem]] = []
    with ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(_check_case, case, dataset, reader, geometry): case.name for case in found.cases}
        for done, future in enumerate(as_completed(waiting), 1):
            problems, known = future.result()
            for check, problem in problems:
                where = (origin or {}).get(problem.where, problem.where)
                wrong.append((check, waiting[future], replace(problem, where=where)))
            facts += [known] if known is not None else []
            report(done, len(found.cases))
    findings = _grouped(sorted(wrong, key=lambda item: (item[1], item[2].where)))
    if not wrong:
        what = f"{len(found.cases)} cases with finite voxels, known label values, matching labels"
        findings.append(ok("cases", what))
        how = "share their grid" if geometry == "header" else "are taken voxel by voxel (--geometry voxel)"
        findings.append(ok("places", f"channels and labels {how}"))
    facts.sort(key=lambda f: f.name)
    findings.append(check_sides(dataset))
    if facts:
        findings += check_facts(facts, dataset)
    return Examination(facts, findings, reader)


def _grouped(wrong: list[tuple[str, str, Problem]]) -> list[Finding]:
    """Return one finding for all cases with the same problem in files of one folder."""
    groups: dict[tuple[str, str, str, Path], list[tuple[str, Path]]] = {}
    for check, case, problem in wrong:
        file = Path(problem.where)
        groups.setdefault((check, problem.what, problem.remedy, file.parent), []).append((case, file))
    findings = []
    for (check, what, remedy, _), members in groups.items():
        names = list(dict.fromkeys(case for case, _ in members))
        files = [file for _, file in members]
        if check == "places" or len(files) > 1:
            what = f"{what} ({names_text(names)})"
        findings.append(error(check, what, remedy, files_text(files)))
    return findings


_Problems = list[tuple[str, Problem]]


def _check_case(case: Case, dataset: Dataset, reader: Reader, geometry: Geometry) -> tuple[_Problems, CaseFacts | None]:
    found: _Problems = []
    damaged = [problem for path in (*case.images, case.label) if (problem := check_nifti(path)) is not None]
    found += [("cases", problem) for problem in damaged]
    broken = {problem.where for problem in damaged}
    options: dict[str, Any] = {"in_voxel_order": geometry == "voxel", "otherwise": _OTHERWISE}
    misplaced: list[Problem] = []
    if not broken & {str(p) for p in case.images}:
        misplaced += check_channels(case.images, reader.name, **options)
    if not broken:
        misplaced += check_label(case.images[0], case.label, reader.name, **options)
    found += [("places", problem) for problem in misplaced]
    image = label = None
    if not broken & {str(p) for p in case.images}:
        image = _read(case.images, reader, found)
    if str(case.label) not in broken:
        label = _read((case.label,), reader, found, is_label=True)
    for path, read in ((case.images[0], image), (case.label, label)):
        if read is not None and read.voxels.ndim != 4:
            axes = read.voxels.ndim - 1
            what = f"{axes} axes, where nnU-Net reads three, or four with the channels last"
            found.append(("cases", Problem(what, str(path), "save 3D volumes, one a case")))
            return found, None
    if image is not None:
        _check_voxels(image, case, dataset, found)
    if label is None:
        return found, None
    if any("values per voxel" in problem.what and problem.where == str(case.label) for problem in misplaced):
        return found, None
    values, counts = np.unique(label.voxels, return_counts=True)
    _check_label_values(label, values.tolist(), case, dataset, found)
    if image is None or len(label.voxels) != 1:
        return found, None
    if image.voxels.shape[1:] != label.voxels.shape[1:]:
        if not misplaced:
            shapes = patch_text(label.voxels.shape[1:]), patch_text(image.voxels.shape[1:])
            what = f"the label's shape {shapes[0]} is not the image's {shapes[1]} (z y x)"
            found.append(("places", Problem(what, str(case.label), "is it another image's label?")))
        return found, None
    if reader.name not in READERS_WITH_GEOMETRY and not np.allclose(image.spacing, label.spacing, rtol=1e-3):
        what = f"the label's spacing {label.spacing} is not the image's {image.spacing}"
        found.append(("places", Problem(what, str(case.label), "correct the files that hold the spacing")))
    flat = image.voxels.reshape(len(image.voxels), -1)
    return found, CaseFacts(
        name=case.name,
        shape=image.voxels.shape[1:],
        spacing=image.spacing,
        direction=image.direction,
        digest=image.digest,
        counts={int(v): int(n) for v, n in zip(values, counts, strict=True) if v in dataset.values},
        is_own_label=any(np.array_equal(channel, label.voxels[0]) for channel in image.voxels),
        is_constant=bool((flat == flat[:, :1]).all(axis=1).any()),
        has_foreground=_has_foreground(image.voxels, label.voxels[0], dataset),
    )


def _read(paths: tuple[Path, ...], reader: Reader, found: _Problems, *, is_label: bool = False) -> Image | None:
    try:
        return reader.read(paths, is_label=is_label)
    except Exception as failure:  # every reader raises its own kinds
        # Faults of headers and differing channels are among the findings already.
        if {problem.where for _, problem in found} & {str(p) for p in paths}:
            return None
        if (shapes := _shapes(paths, reader)) is not None:
            found.append(("places", Problem(shapes, str(paths[1]), "is it another image's channel?")))
            return None
        reason = str(failure).strip().splitlines()[-1] if str(failure).strip() else type(failure).__name__
        if isinstance(failure, KeyError):
            reason = f"missing key {reason}"
        # The same words for all files, which are then reported together.
        reason = reason.replace(str(paths[0]), "the file")
        remedy = reader.remedy("".join(paths[0].suffixes[-2:]) if paths[0].name.endswith(".gz") else paths[0].suffix)
        if re.search(r"\b3d\b|dimension", reason, re.IGNORECASE):
            remedy = f"nnU-Net's {reader.name} takes images with three axes (2D pictures: save them as .png)"
        found.append(("cases", Problem(f"cannot be read: {reason[-160:]}", str(paths[0]), remedy)))
        return None


def _shapes(paths: tuple[Path, ...], reader: Reader) -> str | None:
    """Describe how the shapes of one image's channel files differ; None if they do not."""
    try:
        shapes = [patch_text(reader.read((path,)).voxels.shape[1:]) for path in paths]
    except Exception:
        return None
    if len(set(shapes)) < 2:
        return None
    each = ", ".join(f"{shape} in {path.name}" for shape, path in zip(shapes, paths, strict=True))
    return f"channels of different shapes: {each} (z y x)"


def _check_voxels(image: Image, case: Case, dataset: Dataset, found: _Problems) -> None:
    count, expected = len(image.voxels), len(dataset.channels)
    if count != expected:
        names = ", ".join(dataset.channels)
        remedy = f"one file per channel (_0000 to _{expected - 1:04d}), or correct channel_names"
        if expected == 1:
            remedy = "is it a series in time? keep one image of it, or write each channel to its own file"
        if count == 4 and expected == 3:
            remedy = "the picture has an alpha channel: save it without"
        what = f"{counted(count, 'channel')}, dataset.json names {expected} ({names})"
        found.append(("cases", Problem(what, str(case.images[0]), remedy)))
    if not np.isfinite(image.voxels).all():
        what, remedy = "NaN or infinite voxels", REPLACE
        if not any(problem.where == str(case.images[0]) for _, problem in found):
            found.append(("cases", Problem(what, str(case.images[0]), remedy)))
    elif (largest := float(max(abs(image.voxels.min()), abs(image.voxels.max())))) > _LARGEST:
        what = f"voxels up to {largest:.2g}, whose squares overflow when nnU-Net normalises the image"
        found.append(("cases", Problem(what, str(case.images[0]), "rescale the image, or correct scl_slope")))


def _check_label_values(label: Image, values: list[float], case: Case, dataset: Dataset, found: _Problems) -> None:
    if len(label.voxels) != 1:
        what = f"the label has {len(label.voxels)} channels, as colour pictures have"
        found.append(("cases", Problem(what, str(case.label), "save one channel, with the label values as its voxels")))
        return
    strange = [value for value in values if value not in dataset.values]
    if not strange:
        return
    known = f"known values: {', '.join(map(str, sorted(dataset.values)))}"
    if any(value != round(value) for value in strange if np.isfinite(value)):
        known = f"was the label interpolated? resample labels with nearest neighbour; {known}"
    text = ", ".join(_number(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
    found.append(("cases", Problem(f"label values {text} are not in dataset.json", str(case.label), known)))


def _number(value: float) -> str:
    """Format a value with enough digits to distinguish it from the nearest integer."""
    if np.isfinite(value) and value == round(value):
        return str(round(value))
    short = f"{value:g}"
    return short if float(short) == value or not np.isfinite(value) else f"{value:.9g}"


def _has_foreground(image: NDArray[np.generic], label: NDArray[np.generic], dataset: Dataset) -> bool:
    """Return whether there is foreground in the box around the non-zero voxels, where nnU-Net looks for it."""
    mask = (image != 0).any(axis=0)
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(None))
    return bool(np.isin(label[tuple(box)], dataset.foreground_labels).any())
