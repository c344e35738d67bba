"""Results computed from finished segmentations: volumes, Dice and pictures, several cases concurrently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.errors import BadInput, Problem, WorkerLost
from ppgs.formatting import last_line
from ppgs.nnunet.inference.cases import be_quiet_worker
from ppgs.nnunet.inference.overlay import overlay
from ppgs.nnunet.inference.scores import dice
from ppgs.nnunet.inference.volumes import Amount, Classes, amounts
from ppgs.outputs import is_older, remember
from ppgs.processes.limits import cpu_count
from ppgs.processes.pool import WorkerPool, quickest_start
from ppgs.runs.atomic import write_atomically

# Each holds an image and its segmentation.
_MOST_WORKERS = 4


@dataclass(frozen=True)
class Segmented:
    """A segmented case and its wanted results: a picture, a comparison with a reference."""

    name: str
    image: Path
    segmentation: Path
    amounts: bool = False
    picture: Path | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class Result:
    """Results of one case by class, and its problems."""

    name: str
    amounts: dict[str, Amount] = field(default_factory=dict)
    dice: dict[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Examiner:
    """Examines segmentations of a model."""

    plans: dict[str, Any]
    classes: Classes
    ignore: int | None

    def examine(self, cases: Sequence[Segmented], report: Callable[[int, int], None]) -> list[Result]:
        """Return the results in the order of the cases; raises `WorkerLost`."""
        workers = max(1, min(_MOST_WORKERS, cpu_count() // 2, len(cases)))
        results: list[Result] = []
        try:
            with WorkerPool(workers, _start, (self,), context=quickest_start()) as pool:
                for result in pool.imap(_examine, cases):
                    results.append(result)
                    report(len(results), len(cases))
        except WorkerLost as lost:
            raise WorkerLost(str(lost), "", "the segmentations are there; the same command continues") from None
        return results

    def one(self, case: Segmented) -> Result:
        """Examine one case; failures are recorded in the result's problems."""
        reader = PlansManager(self.plans).image_reader_writer_class()
        problems: list[Problem] = []
        found: dict[str, Amount] = {}
        scores: dict[str, float] = {}
        try:
            if case.amounts:
                found = amounts(case.segmentation, self.classes, reader)
            if case.picture is not None and is_older(case.picture, case.segmentation):
                png = overlay(case.image, case.segmentation, self.classes, case.name)
                case.picture.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(case.picture, lambda file: file.write(png))
                remember(case.picture)
            if case.reference is not None:
                scores = dice(case.segmentation, case.reference, self.classes, self.ignore, reader)
        except BadInput as error:
            problems += error.problems
        except (MemoryError, OSError):
            raise
        except Exception as error:  # every library raises its own kinds
            problems.append(Problem(f"cannot be examined: {last_line(error)}", str(case.segmentation)))
        return Result(case.name, found, scores, tuple(problems))


# State of a worker's process.
_examiner: Examiner | None = None


def _start(examiner: Examiner) -> None:
    global _examiner
    _examiner = examiner
    be_quiet_worker()


def _examine(case: Segmented) -> Result:
    assert _examiner is not None
    return _examiner.one(case)
