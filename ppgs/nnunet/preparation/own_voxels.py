"""Content of a user's images and labels: label values, and channels within one file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skimage import io as pictures

from ppgs.errors import Problem
from ppgs.formatting import last_line
from ppgs.nnunet.images.geometry import itk_header
from ppgs.nnunet.images.nifti import check_nifti
from ppgs.own_data.formats import ENDINGS, PICTURES
from ppgs.own_data.listing import File


def values_of(path: Path, reader: Any, *, is_picture: bool) -> tuple[list[float], Problem | None]:
    """Return the values of a label's voxels, none if it is unusable."""
    if (damaged := check_nifti(path)) is not None:
        return [], damaged
    try:
        voxels = reader.read_seg(str(path))[0]
    except Exception as failure:  # every reader raises its own kinds
        reason = last_line(failure).replace(str(path), "the file")
        return [], Problem(f"cannot be read: {reason}", str(path), "if the file is truncated or damaged, get it again")
    if len(voxels) != 1:
        what = f"the label has {len(voxels)} channels" + (", as colour pictures have" if is_picture else "")
        remedy = "save one channel, with the label values as its voxels"
        if is_picture:
            remedy += "; the numbers of a picture with a palette: numpy.array(PIL.Image.open(FILE))"
        return [], Problem(what, str(path), remedy)
    values = np.unique(voxels)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        strange = [float(v) for v in values if not np.isfinite(v) or v != round(v)]
        text = ", ".join(f"{v:g}" for v in strange[:5]) + (", ..." if len(strange) > 5 else "")
        remedy = "labels hold whole numbers: was it resampled? use nearest neighbour; probabilities need a threshold"
        return [], Problem(f"label values that are no integers: {text}", str(path), remedy)
    if (values < 0).any():
        text = ", ".join(f"{v:g}" for v in values[values < 0][:5])
        return [], Problem(f"label values below 0: {text}", str(path), "use 0 for the background, and 1, 2, ...")
    return values.tolist(), None


def channels_in(file: File, ending: str) -> int:
    """Return how many channels an image file contains; 1 if that is only known after reading it."""
    with suppress(Exception):
        if ENDINGS[file.ending] in PICTURES or ending == ".tif":
            shape = (tifffile.imread if ending == ".tif" else pictures.imread)(file.path).shape
            return int(shape[-1]) if len(shape) == 3 else 1
        if ending in (".tiff", ".nii"):
            return 1
        header = itk_header(file.path)
        return int(header.GetSize()[3]) if header.GetDimension() == 4 else 1
    return 1
