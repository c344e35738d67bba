"""`doctor`: checks of this machine and of a task's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ppgs.doctor.findings import Finding, ok, warning
from ppgs.doctor.machine import check_machine
from ppgs.processes.limits import cpu_count
from ppgs.tasks import Roots, resolve_task


@dataclass(frozen=True)
class Diagnosis:
    """All findings, those of the machine first; `task` is None if no task was given."""

    machine: tuple[Finding, ...]
    task: tuple[Finding, ...] | None

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.machine + (self.task or ())

    @property
    def errors(self) -> int:
        return sum(f.level == "error" for f in self.findings)

    @property
    def warnings(self) -> int:
        return sum(f.level == "warning" for f in self.findings)


def diagnose(
    given: str | None,
    roots: Roots,
    report: Callable[[int, int], None],
    *,
    geometry: Literal["header", "voxel"] = "header",
) -> Diagnosis:
    """Check the machine and, where a task is given, its data; `report(done, total)` while images are read.

    Raises `DatasetError` if there is no such task.
    """
    task = resolve_task(given, roots) if given is not None else None
    # Imports torch and nnU-Net, which takes seconds: after the task is known to exist.
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.preparation import diagnosis

    machine = (*check_machine(roots.folders, cpu_count()), *diagnosis.check_torch())
    if task is None:
        return Diagnosis(machine, None)

    def findings() -> Iterator[Finding]:
        raw = task.source if task.source is not None else roots.raw / task.dataset
        if not raw.is_dir():
            if task.kind == "demo":
                yield ok("cases", "the demo is made on the spot when it is first used")
            else:
                remedy = "restore it to have images and labels checked; trainings can go on without it"
                yield warning("cases", "the raw dataset is not here", remedy, raw)
            return
        yield from diagnosis.check_task(
            raw,
            roots.preprocessed / task.dataset,
            roots.raw / task.dataset,
            decathlon=task.kind == "decathlon",
            geometry=geometry,
            report=report,
        )

    return Diagnosis(machine, tuple(findings()))
