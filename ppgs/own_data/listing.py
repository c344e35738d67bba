"""The image files of a folder, flat or in one folder per case, and its unusable files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppgs.doctor.files import JUNK, is_text
from ppgs.doctor.findings import names_text
from ppgs.errors import Problem
from ppgs.own_data.formats import DICOM, ENDINGS, REFUSED, VOXELS, ending_of

_DICOM_REMEDY = (
    "convert each series to one file first, for instance with dcm2niix: dcm2niix -z y -f %i -o IMAGES {folder} "
    "(DICOM SEG labels: with highdicom or 3D Slicer)"
)


@dataclass(frozen=True)
class File:
    """An image file: its name without ending; in a folder of its case, that folder's name comes first."""

    path: Path
    name: str
    ending: str
    folder: str = ""


@dataclass
class Listing:
    """The content of a folder: image files, ignored files, and problems."""

    files: list[File] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def list_files(folder: Path, what: str) -> Listing:
    """List the image files of a folder or of its folders, one per case; `what` names them (`images`, `labels`)."""
    found = Listing()
    try:
        top, inner = _entries(folder)
    except OSError as problem:
        found.problems.append(_unreadable(folder, problem))
        return found
    flat = _take(folder, top, "", found)
    nested: list[File] = []
    for name in inner:
        try:
            files, deeper = _entries(folder / name)
        except OSError as problem:
            found.problems.append(_unreadable(folder / name, problem))
            continue
        taken = _take(folder / name, files, name, found)
        nested += taken
        if not taken and (below := next((d for d in deeper if _has_images(folder / name / d)), None)) is not None:
            found.problems.append(
                Problem(
                    f"these {what} are two folders deep",
                    str(folder / name / below),
                    "put all files into one folder, or into one folder per case",
                )
            )
    if flat and nested:
        found.problems.append(
            Problem(
                f"there are {what} both in the folder and in folders inside it: {names_text(sorted({*_top(nested)}))}",
                str(folder),
                "put all files into one folder, or each case into its own folder",
            )
        )
    found.files = flat or nested
    if not found.files and not found.problems:
        known = " ".join(ending for ending in ENDINGS)
        passed = f"; it contains {names_text(found.passed, 3)}" if found.passed else ""
        found.problems.append(
            Problem(f"there are no {what} in this folder{passed}", str(folder), f"known endings: {known}")
        )
    return found


def _unreadable(folder: Path, problem: OSError) -> Problem:
    return Problem(f"the folder cannot be read: {problem.strerror}", str(folder), "ask for permission to read it")


def _top(files: Sequence[File]) -> Iterator[str]:
    return (file.folder for file in files)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return names of files (including dead links) and folders, without hidden ones and operating systems' own."""
    names = [
        name
        for name in sorted(path.name for path in folder.iterdir())
        if not name.startswith(".") and name.lower() not in JUNK
    ]
    inner = [name for name in names if (folder / name).is_dir()]
    return [name for name in names if name not in set(inner)], inner


def _has_images(folder: Path) -> bool:
    try:
        return any(ending_of(path.name) in (*ENDINGS, *DICOM) for path in folder.iterdir())
    except OSError:
        return False


def _take(folder: Path, names: Sequence[str], case: str, found: Listing) -> list[File]:
    """Return the image files among these names; the others become problems or are ignored."""
    files: list[File] = []
    refused: dict[tuple[str, str], list[str]] = {}
    dicom: list[str] = []
    for name in names:
        ending, path = ending_of(name), folder / name
        if not is_text(name):
            wrong = ("names that are not UTF-8 text, which image libraries cannot open", "rename these files")
            refused.setdefault(wrong, []).append(name)
        elif path.is_symlink() and not path.exists():
            wrong = ("links that lead nowhere", "restore the files that they point to, or remove the links")
            refused.setdefault(wrong, []).append(name)
        elif ending in ENDINGS:
            stem = name[: -len(ending)]
            files.append(File(path, _case_first(case, stem) if case else stem, ending, case))
        elif ending in REFUSED:
            refused.setdefault(REFUSED[ending], []).append(name)
        elif ending in DICOM or _is_dicom(path):
            dicom.append(name)
        elif ending not in VOXELS:
            found.passed.append(f"{case}/{name}" if case else name)
    for (what, remedy), wrong_names in refused.items():
        found.problems.append(Problem(f"{what}: {names_text(wrong_names)}", str(folder), remedy))
    if dicom:
        what = f"DICOM slices ({names_text(dicom, 3)}), which nnU-Net does not read"
        found.problems.append(Problem(what, str(folder), _DICOM_REMEDY.format(folder=folder)))
    return files


def _is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM does: such files often have no ending."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _case_first(folder: str, stem: str) -> str:
    """Prefix a file's name with its folder's, once: `p1` and `p1_t1` make `p1_t1`, so do `p1` and `t1`."""
    if stem.casefold().startswith(folder.casefold()):
        rest = stem[len(folder) :]
        if not rest or not rest[0].isalnum():
            return folder + rest
    return f"{folder}_{stem}"
