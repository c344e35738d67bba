"""`prepare`: makes what training needs of a task, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppgs.commands.folders import check_folders
from ppgs.doctor.folder import check_task
from ppgs.schedule import PlanFacts
from ppgs.tasks import Roots, resolve_task


@dataclass(frozen=True)
class Prepared:
    """A prepared task: its folder, what was planned for the configuration, and what to know of changed data."""

    dataset: str
    raw: Path
    preprocessed: Path
    facts: PlanFacts
    notes: tuple[str, ...] = ()


def download_task(wanted: Path, mirror: str | None, report: Callable[[str, int, int], None]) -> bool:
    """Make a Decathlon folder from its public archive; False where it is there already. Raises as `download`."""
    from ppgs.download.decathlon import SOURCE, download

    return download(wanted, mirror or SOURCE, report)


def prepare(
    task: str,
    roots: Roots,
    plans: str,
    configuration: str,
    report: Callable[[str, int, int], None],
    *,
    geometry: Literal["header", "voxel"] = "header",
    warn: Callable[[str], object] = lambda _: None,
) -> Prepared:
    """Convert, check, plan and preprocess what is missing; `report(step, done, total)`, `warn(message)`.

    Raises `DatasetError`, `PlansError` or `BadInput`.
    """
    resolved = resolve_task(task, roots)
    check_folders(roots, resolved)
    check_task(resolved, roots)
    # Imports nnU-Net, which takes seconds: after the task is known to exist.
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.preparation.pipeline import Preparation

    notes: list[str] = []

    def tell(message: str) -> None:
        notes.append(message)
        warn(message)

    preparation = Preparation(resolved, roots, plans, configuration, report, geometry=geometry, warn=tell)
    made = preparation.run()
    return Prepared(
        dataset=resolved.dataset,
        raw=preparation.raw,
        preprocessed=preparation.preprocessed,
        facts=PlanFacts.of(made, made.configuration(configuration)),
        notes=tuple(notes),
    )
