"""Image formats by file ending: which of them nnU-Net reads, and under which ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# The endings of one format, the one that a mixture of them is stored under first.
FAMILIES: dict[str, tuple[str, ...]] = {
    "NIfTI": (".nii.gz", ".nii", ".hdr"),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
    "GIPL": (".gipl",),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
ENDINGS = {ending: family for family, endings in FAMILIES.items() for ending in endings}
# Endings of headers whose voxels are in another file.
IN_TWO_FILES = (".hdr", ".nhdr", ".mhd")
# The second files of those; they are no images of their own.
VOXELS = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")
PICTURES = ("PNG", "BMP")

_LOSSY = (
    "JPEG is lossy: it changes labels at their edges, and nnU-Net does not read it",
    "export the originals as PNG; without them, convert the images (never the labels) to PNG",
)
_UNREADABLE = "nnU-Net does not read this format"
_SAVE = "save NIfTI, NRRD or MHA with the true spacing, or PNG for pictures"
REFUSED: dict[str, tuple[str, str]] = {
    ".jpg": _LOSSY,
    ".jpeg": _LOSSY,
    ".jp2": (_UNREADABLE, "convert it to PNG"),
    ".gif": (_UNREADABLE, "convert it to PNG"),
    ".webp": (_UNREADABLE, "convert it to PNG"),
    ".npy": (_UNREADABLE, _SAVE),
    ".npz": (_UNREADABLE, _SAVE),
    ".mat": (_UNREADABLE, _SAVE),
    ".h5": (_UNREADABLE, _SAVE),
    ".mgz": (_UNREADABLE, "convert it with FreeSurfer's mri_convert A.mgz A.nii.gz"),
    ".mgh": (_UNREADABLE, "convert it with FreeSurfer's mri_convert A.mgh A.nii.gz"),
    ".zip": ("this is an archive", "unpack it"),
    ".tar": ("this is an archive", "unpack it"),
    ".tar.gz": ("this is an archive", "unpack it"),
    ".7z": ("this is an archive", "unpack it"),
}
DICOM = (".dcm", ".dicom", ".ima")


def ending_of(name: str) -> str:
    """Return the ending of a file's name in lower case; `.nii.gz` and similar count as one."""
    lower = name.lower()
    known = (*ENDINGS, *REFUSED, *VOXELS, *DICOM)
    found = [ending for ending in known if lower.endswith(ending) and lower != ending]
    return max(found, key=len, default="." + lower.rpartition(".")[2] if "." in lower[1:] else "")


def stored_ending(endings: Iterable[str]) -> str:
    """Return the ending under which nnU-Net reads files of these endings, all of one format.

    TIFF depends on the number of axes besides: nnU-Net reads pictures as .tif and volumes as .tiff.
    """
    found = Counter(endings)
    family = FAMILIES[ENDINGS[next(iter(found))]]
    return ".nii" if set(found) == {".nii"} else family[0]
