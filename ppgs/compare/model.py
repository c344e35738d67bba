"""Data model of results: cases with a Dice per class, grouped in folds, runs and tasks.

Dice is between 0 and 1 and is NaN where a class is absent from both reference and prediction, as nnU-Net writes it.
Class keys are those of nnU-Net's `summary.json`: `1`, or `(1, 2, 3)` for a region.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ppgs.runs.prepared import Changes, difference

FOLD_ALL = "all"


@dataclass(frozen=True)
class FoldCost:
    """Cost of training one fold; None where it is not recorded.

    `seconds` has the training time by source. Energies are in kWh, CO2 in kg CO2eq, memory in bytes, FLOPs those of
    all training iterations.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    energy_kwh: float | None = None
    gpu_kwh: float | None = None
    cpu_kwh: float | None = None
    ram_kwh: float | None = None
    co2_kg: float | None = None
    country: str | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    peak_memory_bytes: int | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Curve:
    """One training: after each epoch the smoothed pseudo Dice (NaN if unknown), seconds and kWh since the start.

    `stage_starts` are the epochs at which a stage of the curriculum begins; `kwh` is empty where no energy is known.
    """

    epochs: tuple[int, ...]
    dice: tuple[float, ...]
    seconds: tuple[float, ...]
    kwh: tuple[float, ...] = ()
    stage_starts: tuple[int, ...] = ()

    def first_reaching(self, dice: float) -> int | None:
        """Return the index of the first epoch whose Dice is at least this."""
        return next((i for i, value in enumerate(self.dice) if value >= dice), None)

    @property
    def final(self) -> float:
        """The last known Dice, or NaN."""
        return next((value for value in reversed(self.dice) if not math.isnan(value)), math.nan)


@dataclass(frozen=True)
class CaseScores:
    """One case: Dice and voxels of the reference per class, and paths of its segmentations (which may not exist)."""

    case: str
    dice: dict[str, float]
    reference_voxels: dict[str, int] = field(default_factory=dict)
    prediction: Path | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class Fold:
    """The validation of one fold; `name` is `0`, `1`, ..., `all`, or empty for a folder of predictions."""

    name: str
    path: Path
    cases: tuple[CaseScores, ...]
    cost: FoldCost
    curve: Curve | None = None


@dataclass(frozen=True)
class StageText:
    """Text of a stage of the schedule, for provenance."""

    patch_size: tuple[int, ...]
    batch_size: int
    epochs: int


@dataclass(frozen=True)
class Provenance:
    """Provenance of a run as far as its folder records it: enough to run it again."""

    path: Path
    trainer: str | None = None
    plans: str | None = None
    configuration: str | None = None
    schedule: str | None = None
    schedule_hash: str | None = None
    seed: int | None = None
    device: str | None = None
    host: str | None = None
    hardware: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    stages: tuple[StageText, ...] = ()
    # Digests of the trained and validated cases; empty if the run does not record them.
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training of one task, as given by a RUN argument.

    `name` is unique within the comparison of a task; `training` is the same for the same training scheme on every task.
    """

    name: str
    training: str
    task: str
    folds: tuple[Fold, ...]
    classes: dict[str, str]
    provenance: Provenance

    @property
    def cases(self) -> Iterator[CaseScores]:
        """All cases of all folds."""
        for fold in self.folds:
            yield from fold.cases

    @property
    def fold_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.folds if f.name)

    @property
    def on_training_cases(self) -> bool:
        """True if the run was validated on its training cases: nnU-Net's `fold_all`."""
        return FOLD_ALL in self.fold_names

    def data_changes(self, before: Run) -> Changes:
        """Return how the run's training data differ from another's, if both are recorded."""
        mine, theirs = self.provenance.data, before.provenance.data
        if not mine or not theirs:
            return Changes()
        changes = difference(theirs, mine)
        # Other folds may have other cases.
        return changes if self.fold_names == before.fold_names else Changes(changed=changes.changed)

    @property
    def class_keys(self) -> tuple[str, ...]:
        """Keys of the foreground classes, in the order of first appearance."""
        return tuple(self.classes)
