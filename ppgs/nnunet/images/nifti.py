"""Integrity of image files: the right file type, and for NIfTI completeness and finite values.

SimpleITK, which nnU-Net reads with, reads truncated files and NaN without a message and fills in zeros.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ppgs.errors import Problem
from ppgs.formatting import first_line, patch_text
from ppgs.processes.limits import memory_limit
from ppgs.runs.atomic import sync_files

_GZIP = b"\x1f\x8b"
_CHUNK = 4 * 1024 * 1024
# Deflate cannot compress further.
_MOST_COMPRESSED = 1032
REPLACE = "replace them by a value that suits the image; in a label, by the value of a class"
_TRUE_SPACING = "write a header with the true spacing, origin and direction"
_POINTERS = (
    (b"version https://git-lfs", "git-LFS", "get the images with: git lfs pull"),
    (b"/annex/objects/", "git-annex", "get the images with: git annex get"),
)


def check_nifti(path: Path) -> Problem | None:
    """Return the fault that makes a NIfTI file unusable, or None; for other formats only a wrong file type.

    Sizes are compared before anything is read, so a header that promises more than there is costs nothing.
    """
    try:
        if (problem := _not_an_image(path)) is not None:
            return problem
        if not path.name.endswith((".nii", ".nii.gz")):
            return None
        image = nibabel.load(path)
        kind = image.header.get_data_dtype()
        if min(image.shape, default=0) < 1:
            return _damaged(path, f"its header gives the shape {patch_text(image.shape)} (x y z)")
        promised = int(image.dataobj.offset) + math.prod(image.shape) * kind.itemsize
        held = path.stat().st_size * (_MOST_COMPRESSED if path.name.endswith(".gz") else 1)
        if promised > held:
            return _damaged(path, f"its header promises {promised} bytes, more than the file can hold")
        if promised > memory_limit():
            return Problem(
                f"{promised} bytes are more than the memory that this process may have",
                str(path),
                "crop or resample it",
            )
        found = _content_size(path, promised)
        if found < promised:
            return _damaged(path, f"it has {found} bytes, but its header promises {promised}")
        if not np.isfinite([*image.affine.flat, *image.header.get_zooms()]).all():
            return Problem("its header has NaN where the voxels' places should be", str(path), _TRUE_SPACING)
        if kind.kind in "fc" and not np.isfinite(image.dataobj.get_unscaled()).all():
            return Problem("NaN or infinite voxels", str(path), REPLACE)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError) as problem:
        return _damaged(path, first_line(problem))
    return None


def check_written(*paths: Path) -> None:
    """Force images written by ITK to disk and check that they are complete; ITK does not report a full disk.

    Raises RuntimeError for one that is not, OSError where forcing fails.
    """
    sync_files(*paths)
    for path in paths:
        if (problem := check_nifti(path)) is not None:
            raise RuntimeError(f"{path.name} was not written whole: {problem.what}")


def _not_an_image(path: Path) -> Problem | None:
    """Describe what a file is instead of an image, by its first bytes: often a web page or a missing compression."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return Problem("the file is empty", str(path), "copy or download it again")
    for begins, what, remedy in _POINTERS:
        if start.startswith(begins):
            return Problem(f"a {what} pointer file, not the image itself", str(path), remedy)
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return Problem("a web page, not an image", str(path), "download it again: is a login or a licence needed?")
    compressed = start.startswith(_GZIP)
    if path.name.endswith(".nii.gz") and not compressed and start[344:347] in (b"n+1", b"ni1"):
        return Problem("not compressed, although its name ends in .gz", str(path), "compress it with gzip")
    if path.name.endswith(".nii.gz") and compressed and _begins_compressed(path):
        return Problem("compressed twice", str(path), f"uncompress it once: gunzip {path.name}")
    if path.name.endswith(".nii") and compressed:
        return Problem("compressed, although its name does not end in .gz", str(path), "uncompress it with gunzip")
    return None


def _begins_compressed(path: Path) -> bool:
    with gzip.open(path) as file:
        return file.read(len(_GZIP)) == _GZIP


def _damaged(path: Path, reason: str) -> Problem:
    if not os.access(path, os.R_OK):
        return Problem("permission denied", str(path), "ask for permission to read the file")
    return Problem(f"cannot be read: {reason[:160]}", str(path), "truncated or damaged: get the file again")


def _content_size(path: Path, enough: int) -> int:
    """Return the bytes of uncompressed content; reading a compressed file to its end verifies its checksum as well."""
    if not path.name.endswith(".gz"):
        return path.stat().st_size
    found = 0
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK):
            found += len(chunk)
            # A small file that unpacks without end must not block.
            if found > 2 * enough + _CHUNK:
                break
    return found
