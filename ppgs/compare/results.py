"""Results of a comparison: plain data for tables, JSON, figures and the report."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Literal

from ppgs.compare.model import Run
from ppgs.compare.statistics import Paired, Ranking, nan_mean, pooled_dice

Outcome = Literal["better", "worse", "not worse", "undecided"]


@dataclass(frozen=True)
class RunCost:
    """Cost of a run over all its folds; None if a fold lacks it. Seconds, kWh, kg CO2eq, bytes, FLOPs.

    `source` names what the seconds come from. `co2_basis` says what CO2 was computed with; it is always an estimate,
    energy times a carbon intensity.
    """

    seconds: float | None = None
    source: str | None = None
    gpu_hours: float | None = None
    energy_kwh: float | None = None
    gpu_kwh: float | None = None
    co2_kg: float | None = None
    co2_basis: str | None = None
    flops: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Surface:
    """Normalised surface Dice (fraction) and 95 % Hausdorff distance (mm), mean over cases; `per_class` by key."""

    surface_dice: float
    hd95_mm: float
    per_class: dict[str, tuple[float, float]]
    cases: int


@dataclass(frozen=True)
class RunResult:
    """A run with its pooled figures; `per_case` is each case's mean over its foreground classes."""

    run: Run
    mean_dice: float
    dice_per_class: dict[str, float]
    per_case: dict[str, float]
    cost: RunCost
    surface: Surface | None = None

    @property
    def case_count(self) -> int:
        return len(self.case_names)

    @property
    def case_names(self) -> frozenset[str]:
        return frozenset(c.case for c in self.run.cases)

    def mean_dice_on(self, cases: Set[str]) -> float:
        """Return the mean Dice over these cases only, pooled like `mean_dice`; NaN if they define none."""
        chosen = [c for c in self.run.cases if c.case in cases]
        return nan_mean(list(pooled_dice(chosen, self.run.class_keys).values()))


@dataclass(frozen=True)
class ReachedBaseline:
    """Seconds until the baseline's final pseudo Dice, mean over the folds that reached it; None if none did."""

    folds: int
    reached: int
    seconds: float | None
    share_of_baseline: float | None


@dataclass(frozen=True)
class Verdict:
    """One plain sentence and its caveats."""

    outcome: Outcome
    sentence: str
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A run against the baseline of its task; ratios are run over baseline on the folds that both have.

    The `common` mean Dice are pooled over the cases that both have, so that they may differ from the runs' own.
    """

    task: str
    run: RunResult
    baseline: RunResult
    statistics: Paired
    wilcoxon_p_holm: float
    common_mean_dice: float
    common_baseline_mean_dice: float
    non_inferior: bool
    per_class: dict[str, Paired]
    time_ratio: float | None
    energy_ratio: float | None
    co2_ratio: float | None
    flops_ratio: float | None
    memory_ratio: float | None
    reached_baseline: ReachedBaseline | None
    verdict: Verdict


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in their seed, and the spread of their mean Dice (`sd`: sample standard deviation)."""

    task: str
    name: str
    runs: tuple[RunResult, ...]
    mean_dice: float
    sd: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class SeedPair:
    """Two schemes, each case averaged over the scheme's seeds; `ci95_seeds` is over seeds and cases.

    Ratios are of the means over seeds.
    """

    task: str
    group: SeedGroup
    baseline: SeedGroup
    statistics: Paired
    ci95_seeds: tuple[float, float]
    wilcoxon_p_holm: float
    time_ratio: float | None
    energy_ratio: float | None
    verdict: Verdict


@dataclass(frozen=True)
class TaskResult:
    """Everything about one task; the baseline is the first of `runs`."""

    task: str
    runs: tuple[RunResult, ...]
    pairs: tuple[Pair, ...]
    seed_groups: tuple[SeedGroup, ...] = ()
    seed_pairs: tuple[SeedPair, ...] = ()

    @property
    def baseline(self) -> RunResult:
        return self.runs[0]


@dataclass(frozen=True)
class AcrossTasks:
    """One training against the baseline over all tasks that both have.

    `mean_relative_gain` is the mean over tasks of the Dice difference relative to the baseline's Dice, in percent.
    Every task's mean Dice is pooled over the cases that both trainings have. Ratios are means over tasks.
    """

    training: str
    tasks: int
    wins: int
    losses: int
    ties: int
    clear_wins: int
    clear_losses: int
    not_worse: int
    mean_difference: float
    mean_relative_gain: float
    relative_gain_ci95: tuple[float, float]
    wilcoxon_p: float
    time_ratio: float | None
    energy_ratio: float | None
    co2_ratio: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The whole result; `labels` are short names of trainings for tables and figures.

    `unpredicted` are the cases of the references that were given which no run has.
    """

    baseline: str
    tasks: tuple[TaskResult, ...]
    across: tuple[AcrossTasks, ...]
    ranking: Ranking | None
    labels: dict[str, str]
    margin: float
    tolerance_mm: float
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default_factory=tuple)
    unpredicted: tuple[str, ...] = ()

    @property
    def runs(self) -> list[RunResult]:
        return [run for task in self.tasks for run in task.runs]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for task in self.tasks for pair in task.pairs]

    def label(self, run: Run) -> str:
        return self.labels.get(run.training, run.training)
