"""Run the checks of `ppgs doctor` on a raw dataset, for tests."""

from __future__ import annotations

from pathlib import Path

from ppgs.doctor.findings import Finding
from ppgs.doctor.folder import check_folder
from ppgs.nnunet.preparation.raw_checks import Geometry, examine_images


def check(folder: Path, *, geometry: Geometry = "header", fold: int | str | None = None) -> list[Finding]:
    is_decathlon = folder.name.startswith("Task")
    found = check_folder(folder, folder.parent / "preprocessed", decathlon=is_decathlon, fold=fold)
    examined = examine_images(
        found, decathlon=is_decathlon, geometry=geometry, report=lambda done, total: None, threads=2
    )
    return [*found.findings, *(examined.findings if examined is not None else ())]


def of_level(findings: list[Finding], level: str) -> list[str]:
    return [f"{f.what} | {f.where} | {f.remedy}" for f in findings if f.level == level]
