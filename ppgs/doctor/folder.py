"""Checks of a raw folder that read no images: its `dataset.json`, file names and folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppgs import upstream
from ppgs.doctor.description import Description, read_description
from ppgs.doctor.files import Case, find_cases
from ppgs.doctor.findings import Finding, error, raise_errors, warning
from ppgs.doctor.splits import check_splits_file, splits_in_use
from ppgs.errors import DatasetError, PathUnusable, PpgsError
from ppgs.formatting import counted
from ppgs.runs.cascade import read_splits
from ppgs.runs.splits import is_cross_validation
from ppgs.tasks import Roots, Task


@dataclass(frozen=True)
class FolderCheck:
    """The content of a raw folder, and all findings about it."""

    folder: Path
    description: Description
    cases: list[Case]
    findings: list[Finding]

    def raise_errors(self) -> None:
        """Raise `DatasetError` with all errors, if there are any."""
        raise_errors(self.findings, self.folder.name)

    def raise_early(self) -> None:
        """Raise all errors where reading the images would add nothing: `dataset.json` or folds are wrong, or no case.

        Missing files are reported together with what is wrong with the others.
        """
        if not self.cases or any(f.level == "error" and f.check != "cases" for f in self.findings):
            self.raise_errors()


def check_folder(folder: Path, preprocessed: Path, *, decathlon: bool, fold: int | str | None = None) -> FolderCheck:
    """Check a raw nnU-Net dataset or a Decathlon folder for the training of a fold (None: any)."""
    description = read_description(folder, decathlon=decathlon)
    cases, findings = find_cases(folder, description, decathlon=decathlon)
    findings = [*description.findings, *findings]
    splits = splits_in_use(folder, preprocessed)
    complete = not any(f.level == "error" and f.check in ("cases", "dataset.json") for f in findings) and bool(cases)
    if splits is not None:
        # Where cases are missing already, folds that name them are no mistake of the folds; nnU-Net's own folds follow
        # the cases.
        known = [case.name for case in cases] if complete and not _follow(splits, preprocessed) else None
        findings += check_splits_file(splits, known)
    elif complete and len(cases) < upstream.FOLDS and fold != "all":
        count = counted(len(cases), "case")
        what = f"{count} {'is' if len(cases) == 1 else 'are'} too few for nnU-Net's five-fold cross-validation"
        remedy = "train with --fold all, or bring folds of your own (splits_final.json beside dataset.json)"
        findings.append((warning if fold is None else error)("splits", what, remedy, folder))
    return FolderCheck(folder, description, cases, findings)


def _follow(splits: Path, preprocessed: Path) -> bool:
    """Return whether the folds look like nnU-Net's own, which a preparation updates with the cases."""
    try:
        return splits.parent == preprocessed and is_cross_validation(read_splits(splits))
    except PpgsError:
        return False


def check_task(task: Task, roots: Roots, fold: int | str | None = None) -> None:
    """Check the raw data of a task; raises `DatasetError` for faults that show without reading images."""
    preprocessed, raw = roots.preprocessed / task.dataset, roots.raw / task.dataset
    if task.kind == "demo":
        return
    if raw.is_dir():
        check_folder(raw, preprocessed, decathlon=False, fold=fold).raise_early()
    elif task.source is not None:
        check_folder(task.source, preprocessed, decathlon=True, fold=fold).raise_early()
    elif not (preprocessed / "dataset.json").is_file():
        remedy = "restore it, or give the Decathlon folder"
        raise PathUnusable.as_folder(raw) or DatasetError("the raw dataset is missing", raw, remedy)
    elif (splits := splits_in_use(raw, preprocessed)) is not None:
        raise_errors(check_splits_file(splits, None), task.dataset)
