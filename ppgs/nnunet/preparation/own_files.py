"""A file of a dataset made from two folders: its source, how it is made, and whether it is unchanged."""

from __future__ import annotations

import glob
import gzip
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from skimage import io as pictures

from ppgs.nnunet.images.nifti import check_written
from ppgs.own_data.formats import IN_TWO_FILES, ending_of
from ppgs.own_data.listing import File
from ppgs.own_data.matching import Case

# The key of MetaImage's and of NRRD's headers that names the voxels.
_DATA_FILE = re.compile(r"^(?:ElementDataFile[ \t]*=|data ?file:)[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """One file of the dataset: its source, and how it is made."""

    name: str
    source: Path
    how: str  # link, or convert
    values: Mapping[int, int] = field(default_factory=dict)

    def to_record(self, state: list[int] | None) -> dict[str, Any]:
        """Convert the target to plain data, made from its source in that state."""
        values = {str(old): new for old, new in self.values.items()}
        return {"source": str(self.source), "how": self.how, "values": values, "state": state}


def target_of(name: str, file: File, ending: str, values: Mapping[int, int]) -> Target:
    compressed = file.ending == ".nii" and ending == ".nii.gz"
    convert = bool(values) or file.ending in IN_TWO_FILES or compressed
    return Target(name, file.path.absolute(), "convert" if convert else "link", values)


def spacing_file(file: File, case: Case) -> Path | None:
    """Return the file with the spacing of a TIFF volume, under its own name or its case's."""
    stem = file.path.name[: -len(file.ending)]
    named = (file.path.with_name(f"{name}.json") for name in (stem, file.name, case.name))
    return next((path.absolute() for path in named if path.is_file()), None)


def state_of(path: Path) -> list[int] | None:
    """Return size and modification time; None if there is no such file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns]


def source_state(path: Path) -> list[int] | None:
    """Return the state of a source: of the header and of the voxels if it is in two files."""
    states = [state_of(file) for file in (path, *_voxels_of(path))]
    return None if states[0] is None else [number for state in states if state is not None for number in state]


def _voxels_of(header: Path) -> list[Path]:
    """Return the files of voxels that a header names, which may not exist; none for an image in one file."""
    ending = ending_of(header.name)
    if ending not in IN_TWO_FILES:
        return []
    if ending == ".hdr":
        stem = header.name[: -len(ending)]
        named = [f"{stem}{end}" for end in (".img", ".IMG", ".img.gz")]
    else:
        try:
            with header.open("rb") as file:
                text = file.read(_HEADER_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        match = _DATA_FILE.search(text)
        if match is None:
            return []
        # Slices are listed on the lines below, or numbered as in `slice%03d.raw 1 20 1`.
        first = match[1].strip()
        named = text[match.end() :].split("\n") if first.upper().split()[:1] == ["LIST"] else [first]
        if numbered := re.match(r"(.*)%\d*d(\S*)", first):
            before, after = (glob.escape(str(part)) for part in (header.parent / numbered[1], numbered[2]))
            return sorted(map(Path, glob.glob(f"{before}*{after}")))  # noqa: PTH207 (its folder may be any)
    return [header.parent / name.strip() for name in named if name.strip()]


def is_kept(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a file of the dataset exists as `now` describes it, having been made as in `before`."""
    if any(before.get(key) != now.get(key) for key in ("source", "how", "values")):
        return False
    if path.is_symlink():
        return _leads_to(path, now) and path.exists()
    return path.is_file() and before["state"] == now["state"]


def is_ours(path: Path, entry: Mapping[str, Any] | None) -> bool:
    """Return whether a file of the dataset is still as it was made."""
    if entry is None:
        return False
    return _leads_to(path, entry) if path.is_symlink() else state_of(path) == entry.get("made")


def _leads_to(link: Path, entry: Mapping[str, Any]) -> bool:
    return bool(entry["how"] == "link" and str(link.readlink()) == entry["source"])


def link(source: Path, target: Path) -> None:
    """Link to a file, or copy it on file systems without links."""
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def same_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def convert(target: Target, path: Path) -> None:
    """Write a file that cannot be linked: another ending, other label values, or a spacing given from outside."""
    if path.suffix == ".json":
        path.write_text(json.dumps({"spacing": [1.0, 1.0, 1.0]}), encoding="utf-8")
    elif not target.values and target.source.name.lower().endswith(".nii"):
        with target.source.open("rb") as source, gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
            shutil.copyfileobj(source, file)
    elif path.name.endswith((".png", ".bmp", ".tif", ".tiff")):
        is_tiff = path.name.endswith((".tif", ".tiff"))
        voxels = tifffile.imread(target.source) if is_tiff else pictures.imread(target.source)
        changed = _renumbered(voxels, target.values)
        if is_tiff:
            tifffile.imwrite(path, changed, compression="zlib")
        else:
            pictures.imsave(path, changed, check_contrast=False)
    else:
        image = sitk.ReadImage(str(target.source))
        if target.values:
            changed = sitk.GetImageFromArray(_renumbered(sitk.GetArrayFromImage(image), target.values))
            changed.CopyInformation(image)
            image = changed
        sitk.WriteImage(image, str(path), True)
    check_written(path)


def _renumbered(voxels: NDArray[Any], values: Mapping[int, int]) -> NDArray[Any]:
    made = np.zeros(voxels.shape, np.uint8 if max(values.values()) < 256 else np.uint16)
    for old, new in values.items():
        made[voxels == old] = new
    return made
