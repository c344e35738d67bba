"""Position of images in space by their headers: do the channels of an image, and its label, share one grid?

nnU-Net trains on voxels as they are stored and compares neither origins nor directions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ppgs import upstream
from ppgs.errors import Problem
from ppgs.formatting import patch_text

# Tolerance in voxels for corners of two image boxes: headers of different programs differ slightly.
TOLERANCE = 0.5
_ITK_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient")
READERS_WITH_GEOMETRY = (*_ITK_READERS, "NibabelIO", "NibabelIOWithReorient")
_SAME_GRID = "if their voxels correspond, copy the first one's header to the others; otherwise resample them"


@dataclass(frozen=True)
class Grid:
    """The voxel grid of an image: its shape (x, y, z) and the affine from voxel index to millimetres."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in millimetres (x, y, z)."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def is_singular(self) -> bool:
        """True if an axis has no length, or the axes do not span the space."""
        if not np.isfinite(self.affine).all() or 0.0 in (lengths := np.linalg.norm(self.affine, axis=0)):
            return True
        # Whatever the unit: voxels of electron microscopes are 5e-5 mm wide.
        return abs(float(np.linalg.det(self.affine[:-1, :-1] / lengths[:-1]))) < 1e-6

    def reoriented(self) -> Grid:
        """Return the grid of the voxels as nnU-Net's reorienting readers return them."""
        if len(self.shape) != 3:
            return self
        turn = io_orientation(self.affine)
        shape = apply_orientation(np.empty(self.shape, np.bool_), turn).shape
        return Grid(shape, self.affine @ inv_ornt_aff(turn, self.shape))

    def corners(self) -> NDArray[np.float64]:
        """Return the corners of the image box as homogeneous voxel indices, one per column."""
        edges = itertools.product(*((-0.5, n - 0.5) for n in self.shape))
        return np.array([(*corner, 1.0) for corner in edges]).T


def farthest_corner(reference: Grid, other: Grid) -> float:
    """Return the largest distance of corresponding corners of two grids of one shape, in the reference's voxels."""
    corners = reference.corners()
    return float(np.abs(np.linalg.solve(reference.affine, other.affine @ corners) - corners).max())


def check_channels(
    files: Sequence[Path], reader: str = "SimpleITKIO", *, in_voxel_order: bool = False, otherwise: str = ""
) -> list[Problem]:
    """Return the problems in the headers of one image's channel files that prevent reading them together.

    `reader` is the name of nnU-Net's reader class; formats without geometry pass. `in_voxel_order` accepts files that
    lie elsewhere as long as nnU-Net reads them; `otherwise` is appended to the remedy of what that would accept.
    """
    grids, found = _read_grids(files, reader, in_voxel_order=in_voxel_order, otherwise=otherwise)
    for file, grid in zip(files[1:], grids[1:], strict=True):
        first = grids[0]
        if first is None or grid is None:
            continue
        if first.shape != grid.shape:
            found.append(
                Problem(
                    f"channels of different shapes: {patch_text(grid.shape[::-1])} here, "
                    f"{patch_text(first.shape[::-1])} in {files[0].name} (z y x)",
                    str(file),
                    "resample the channels onto one grid; is it another image's channel?",
                )
            )
        elif not np.allclose(first.spacing, grid.spacing):
            found.append(
                Problem(
                    f"channels of different spacings, which nnU-Net does not read together: {_mm(grid.spacing)} here, "
                    f"{_mm(first.spacing)} in {files[0].name} (z y x)",
                    str(file),
                    _SAME_GRID,
                )
            )
        elif not in_voxel_order and (apart := _apart(first, grid)):
            found.append(
                Problem(
                    f"this channel is not on the grid of {files[0].name}: {apart}", str(file), _SAME_GRID + otherwise
                )
            )
    return found


def check_label(
    image: Path, label: Path, reader: str = "SimpleITKIO", *, in_voxel_order: bool = False, otherwise: str = ""
) -> list[Problem]:
    """Return the problems of the label's header; of the image only the grid is used."""
    found = _read_grids([label], reader, in_voxel_order=in_voxel_order, otherwise=otherwise)[1]
    found = [replace(p, remedy="save one value per voxel") if "values per voxel" in p.what else p for p in found]
    (image_grid, label_grid), _ = _read_grids([image, label], reader, in_voxel_order=True)
    if image_grid is None or label_grid is None:
        return found
    if image_grid.shape != label_grid.shape:
        what = (
            f"the label's shape {patch_text(label_grid.shape[::-1])} is not the image's "
            f"{patch_text(image_grid.shape[::-1])} (z y x)"
        )
        return [*found, Problem(what, str(label), "is it another image's label?")]
    if not in_voxel_order and (apart := _apart(image_grid, label_grid)):
        remedy = "if their voxels correspond, copy the image's header to the label; otherwise resample the label"
        found.append(Problem(f"the label is not on the grid of its image: {apart}", str(label), remedy + otherwise))
    return found


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{v:.5g}" for v in reversed(spacing)) + " mm"


def _apart(reference: Grid, other: Grid) -> str:
    """Describe how two grids of the same shape differ; empty if they do not."""
    voxels = farthest_corner(reference, other)
    if voxels <= TOLERANCE + 1e-6:
        return ""
    difference = (other.affine - reference.affine) @ reference.corners()
    text = f"corners are up to {float(np.linalg.norm(difference, axis=0).max()):.3g} mm ({voxels:.3g} voxels) apart"
    cosines = np.sum(reference.affine[:-1, :-1] * other.affine[:-1, :-1], axis=0)
    mirrored = [name for name, cosine in zip("xyz", cosines, strict=False) if cosine < 0]
    if mirrored:
        text += f"; the header says that {' and '.join(mirrored)} run{'s' if len(mirrored) == 1 else ''} the other way"
    return text


def _read_grids(
    files: Sequence[Path], reader: str, *, in_voxel_order: bool, otherwise: str = ""
) -> tuple[list[Grid | None], list[Problem]]:
    """Read the grid of each file (None if its format has none or it is unusable) and problems of headers."""
    grids: list[Grid | None] = []
    problems: list[Problem] = []
    for file in files:
        grid: Grid | None = None
        problem: Problem | None = None
        try:
            if reader not in READERS_WITH_GEOMETRY:
                pass
            elif file.name.endswith((".nii", ".nii.gz")):
                grid, problem = _read_nifti(file, reader in _ITK_READERS, None if in_voxel_order else otherwise)
            else:
                grid, problem = _read_other(file)
        except Exception:  # every library raises its own kinds; reading the voxels says what is wrong
            grid = None
        if grid is not None and grid.is_singular:
            problem = problem or Problem(
                "its header gives an axis no length, so that no voxel has a place",
                str(file),
                "write a header with the true spacing",
            )
            grid = None
        if grid is not None and reader in upstream.REORIENTING:
            grid = grid.reoriented()
        grids.append(grid)
        problems += [problem] if problem is not None else []
    return grids, problems


def itk_header(file: Path) -> Any:
    """Read a file's header alone, with ITK; raises RuntimeError."""
    # What is wrong with a header is reported here; ITK's own warnings would go to the terminal.
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    header = sitk.ImageFileReader()
    header.SetFileName(str(file))
    header.ReadImageInformation()
    return header


def _several_values(file: Path, count: int) -> Problem:
    return Problem(
        f"contains {count} values per voxel, which nnU-Net takes for an axis of the image",
        str(file),
        "write each of them to its own channel file (_0000, _0001, ...)",
    )


def _read_other(file: Path) -> tuple[Grid, Problem | None]:
    header = itk_header(file)
    axes = header.GetDimension()
    kept = min(axes, 3)
    affine = np.eye(kept + 1)
    direction = np.array(header.GetDirection()).reshape(axes, axes)[:kept, :kept]
    affine[:kept, :kept] = direction * np.array(header.GetSpacing()[:kept])
    affine[:kept, kept] = header.GetOrigin()[:kept]
    count = header.GetNumberOfComponents()
    return Grid(tuple(header.GetSize()[:kept]), affine), _several_values(file, count) if count > 1 else None


def _read_nifti(file: Path, by_itk: bool, otherwise: str | None) -> tuple[Grid | None, Problem | None]:
    image = nibabel.load(file)
    shape = (*image.shape, 1, 1)[:3]
    grid = Grid(shape, np.asarray(image.affine, np.float64))
    if by_itk:
        try:
            count = itk_header(file).GetNumberOfComponents()
        except RuntimeError as refused:
            if "orthonormal" not in str(refused):
                raise
            return (grid, None) if grid.is_singular else (None, _sheared(file, grid))
        if count > 1:
            return None, _several_values(file, count)
    return grid, None if otherwise is None else _check_forms(file, image, shape, otherwise)


def _sheared(file: Path, grid: Grid) -> Problem:
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    degrees = float(np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1))))
    return Problem(
        f"ITK, with which nnU-Net reads this file, refuses its affine: the axes are sheared by {degrees:.2g} degrees",
        str(file),
        "resample image and label onto perpendicular axes (nibabel.processing.resample_to_output), or write the "
        "affine without its shear where that is rounding alone; or read all files of a dataset with nibabel: "
        '"overwrite_image_reader_writer": "NibabelIO" in dataset.json',
    )


def _check_forms(file: Path, image: Any, shape: tuple[int, ...], otherwise: str) -> Problem | None:
    """Check that a NIfTI file's two positions agree (sform, and qform with pixdim)."""
    header = image.header
    if not hasattr(header, "get_qform") or int(header["sform_code"]) == 0:
        return None
    sform = Grid(shape, np.asarray(header.get_sform(), np.float64))
    if sform.is_singular:
        return None
    if int(header["qform_code"]) > 0:
        try:
            affine = np.asarray(header.get_qform(), np.float64)
        except HeaderDataError:
            return None
        name = "qform"
    else:
        zooms = (*(float(z) for z in header.get_zooms()), 1.0, 1.0)[:3]
        affine = sform.affine.copy()
        affine[:3, :3] *= np.array(zooms) / np.array(sform.spacing)
        name = "pixdim"
    qform = Grid(shape, affine)
    if qform.is_singular:
        return None
    apart = _apart(sform, qform)
    if not apart:
        return None
    return Problem(
        f"{name} and sform differ: spacing {_mm(qform.spacing)} and {_mm(sform.spacing)} (z y x); {apart}",
        str(file),
        "keep the true one, with nibabel: image.set_qform(image.get_sform(), 1), or "
        "image.set_sform(image.get_qform(), 1)" + otherwise,
    )
