"""The registry of `compare`'s columns: every statistic once, with all the places that show it.

To add a statistic, compute it (in `statistics.Paired`, for example) and add a `Column` here. It then appears in JSON,
and in each table that `shown` names (terminal, CSV, LaTeX and Markdown, the report) as the last column, unless the
table's `order` in `layouts` gives it a place. Titles contain the unit; keys of JSON and CSV end with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ppgs.compare.analysis.verdict import p_text, signed
from ppgs.compare.reporting.column_types import Column, Group, Shown
from ppgs.compare.reporting.formats import (
    MISSING,
    decimal_hours,
    gibibytes,
    hours,
    interval,
    number,
    percent,
    petaflops,
    ratio,
    short_p,
    significant,
)
from ppgs.compare.reporting.layouts import (
    COST,
    CSV,
    PAPER,
    RANKING,
    SEEDS,
    SUMMARY,
    SUMMARY_PAIRS,
    TERMINAL,
    TERMINAL_PAIRS,
    TERMINAL_RANKING,
    Line,
    Standing,
)
from ppgs.compare.results import AcrossTasks, Pair, ReachedBaseline, RunResult, SeedGroup, SeedPair
from ppgs.compare.statistics import finite

_DICE = partial(number, digits=4)
_TWO_DIGITS = partial(number, digits=2)


def _kwh_of(line: Line) -> str:
    energy = line.result.cost.energy_kwh
    return MISSING if energy is None else f"{significant(energy)} kWh"


def _when_reached(reached: ReachedBaseline) -> str:
    """Return the time until the baseline's final Dice was reached, and in how many folds, if not in all."""
    if reached.seconds is None:
        return "never"
    some = f" ({reached.reached} of {reached.folds} folds)" if reached.reached < reached.folds else ""
    return f"{hours(reached.seconds)}{some}"


def _baseline(_: Any) -> str:
    return "baseline"


RUN: tuple[Column[RunResult], ...] = (
    Column("name", lambda r: r.run.name, shown={CSV: ""}),
    Column("task", lambda r: r.run.task, shown={CSV: ""}),
    Column("training", lambda r: r.run.training, shown={CSV: ""}),
    Column("path", lambda r: r.run.provenance.path),
    Column(
        "mean_dice", lambda r: r.mean_dice, _DICE,
        shown={
            CSV: "",
            TERMINAL: Shown("Dice", priority=0),
            TERMINAL_PAIRS: Shown("Run", priority=0),
            PAPER: "Dice",
            SUMMARY: "Dice",
            SUMMARY_PAIRS: Shown("{run}", hint="mean Dice"),
        },
    ),
    Column(
        "dice_per_class", lambda r: r.dice_per_class,
        shown={CSV: Shown(value=lambda r: " ".join(f"{k}={finite(v)}" for k, v in r.dice_per_class.items()))},
    ),
    Column("classes", lambda r: r.run.classes),
    Column("cases", lambda r: r.case_count, shown={CSV: "", PAPER: "Cases"}),
    Column(
        "folds", lambda r: [int(name) for name in r.run.fold_names if name.isdigit()],
        shown={
            CSV: Shown(value=lambda r: " ".join(r.run.fold_names)),
            TERMINAL: Shown("Folds", priority=12, value=lambda r: " ".join(r.run.fold_names) or MISSING),
            PAPER: Shown("Folds", value=lambda r: len(r.run.fold_names) or None),
        },
    ),
    Column("fold_all", lambda r: r.run.on_training_cases),
    Column("seed", lambda r: r.run.provenance.seed, shown={CSV: ""}),
    Column("schedule", lambda r: r.run.provenance.schedule, shown={CSV: ""}),
    Column(
        "seconds", lambda r: r.cost.seconds, hours,
        shown={CSV: "", TERMINAL: Shown("Time", priority=7), PAPER: Shown("Hours", text=decimal_hours), COST: "Time"},
    ),
    Column("seconds_source", lambda r: r.cost.source),
    Column("gpu_hours", lambda r: r.cost.gpu_hours, significant, shown={CSV: "", COST: "GPU hours"}),
    Column(
        "energy_kwh", lambda r: r.cost.energy_kwh, significant,
        shown={CSV: "", TERMINAL: Shown("kWh", priority=8), PAPER: "kWh", COST: "Energy kWh"},
    ),
    Column("gpu_kwh", lambda r: r.cost.gpu_kwh, significant, shown={COST: "of it GPU"}),
    Column(
        "co2_kg", lambda r: r.cost.co2_kg, significant,
        shown={CSV: "", TERMINAL: Shown("CO2eq kg*", priority=13), PAPER: "kg CO2eq (est.)", COST: "CO2eq kg (est.)"},
    ),
    Column("co2_basis", lambda r: r.cost.co2_basis),
    Column(
        "flops", lambda r: r.cost.flops, petaflops,
        shown={
            CSV: "",
            TERMINAL: Shown("PFLOPs", priority=15, value=lambda r: r.cost.flops or None),
            COST: Shown("PFLOPs", value=lambda r: r.cost.flops or None),
        },
    ),
    Column(
        "peak_memory_bytes", lambda r: r.cost.peak_memory_bytes, gibibytes,
        shown={
            CSV: "",
            TERMINAL: Shown("Memory", priority=16, value=lambda r: r.cost.peak_memory_bytes or None),
            COST: Shown(
                "Peak memory", value=lambda r: r.cost.peak_memory_bytes or None, text=partial(gibibytes, digits=2)
            ),
        },
    ),
    Column(
        "surface_dice", lambda r: r.surface.surface_dice if r.surface else None, _DICE,
        shown={
            CSV: "",
            TERMINAL: Shown("NSD", priority=10),
            PAPER: "Surface Dice",
            SUMMARY: Shown("Surface Dice", hint="at {tolerance} mm"),
        },
    ),
    Column(
        "hd95_mm", lambda r: r.surface.hd95_mm if r.surface else None, _TWO_DIGITS,
        shown={CSV: "", TERMINAL: Shown("HD95 mm", priority=10), PAPER: "HD95 mm", SUMMARY: "HD95 mm"},
    ),
    Column("surface_cases", lambda r: r.surface.cases if r.surface else None),
)  # fmt: skip

# Shared by pairs of runs and pairs of schemes over their seeds. The latter appear in JSON alone.
_PAIRED: tuple[Column[Pair | SeedPair], ...] = (
    Column(
        "cases", lambda p: p.statistics.cases,
        shown={
            TERMINAL: Shown("Cases", priority=9, instead=lambda line: line.result.case_count),
            SUMMARY: Shown("Cases", instead=lambda line: line.result.case_count),
        },
    ),
    Column(
        "mean_difference", lambda p: p.statistics.mean_difference, signed,
        shown={
            CSV: "",
            TERMINAL: Shown("Diff.", priority=1, marked=True, instead=_baseline),
            PAPER: Shown("Difference", instead=_baseline),
            SUMMARY: Shown("Difference", instead=_baseline),
        },
    ),
    Column("median_difference", lambda p: p.statistics.median_difference),
    Column(
        "ci95", lambda p: p.statistics.ci95, interval,
        shown={
            TERMINAL: Shown("95 % CI", priority=2),
            PAPER: "95 % CI",
            SUMMARY: Shown("95 % CI", sort=lambda ends: ends[0]),
        },
    ),
    Column("ci95_low", lambda p: p.statistics.ci95[0], shown={CSV: ""}, json=False),
    Column("ci95_high", lambda p: p.statistics.ci95[1], shown={CSV: ""}, json=False),
    Column(
        "wilcoxon_p", lambda p: p.statistics.wilcoxon_p, short_p,
        shown={
            CSV: "",
            TERMINAL: Shown("p", priority=11),
            PAPER: "p",
            SUMMARY: Shown("p", hint="Wilcoxon signed-rank", text=p_text),
        },
    ),
    Column(
        "rank_biserial", lambda p: p.statistics.rank_biserial, partial(signed, digits=2),
        shown={
            CSV: "",
            TERMINAL: Shown("Effect r", priority=14),
            PAPER: "Effect r",
            SUMMARY: Shown("Effect r", hint="matched-pairs rank-biserial correlation, -1 to 1"),
        },
    ),
    Column("cohen_dz", lambda p: p.statistics.cohen_dz, shown={CSV: ""}),
    Column("wins", lambda p: p.statistics.wins, shown={CSV: ""}),
    Column("losses", lambda p: p.statistics.losses, shown={CSV: ""}),
    Column("ties", lambda p: p.statistics.ties, shown={CSV: ""}),
    Column("non_inferiority_p", lambda p: p.statistics.non_inferiority_p, shown={CSV: ""}),
)  # fmt: skip

PAIR: tuple[Column[Pair], ...] = (
    Column("run", lambda p: p.run.run.name),
    Column("baseline", lambda p: p.baseline.run.name, shown={CSV: ""}),
    Column("task", lambda p: p.task),
    *_PAIRED,
    Column(
        "wilcoxon_p_holm", lambda p: p.wilcoxon_p_holm, short_p,
        shown={
            CSV: "",
            TERMINAL: Shown("p (Holm)", priority=4),
            PAPER: "p (Holm)",
            SUMMARY: Shown("p (Holm)", text=p_text),
        },
    ),
    Column(
        "baseline_mean_dice", lambda p: p.baseline.mean_dice, _DICE, json=False,
        shown={TERMINAL_PAIRS: Shown("Base", priority=0), SUMMARY_PAIRS: Shown("{baseline}", hint="mean Dice")},
    ),
    Column("common_mean_dice", lambda p: p.common_mean_dice),
    Column("common_baseline_mean_dice", lambda p: p.common_baseline_mean_dice),
    Column(
        "outcome", lambda p: p.verdict.outcome, numeric=False,
        shown={
            CSV: "",
            TERMINAL: Shown("Verdict", priority=3, marked=True),
            PAPER: "Verdict",
            SUMMARY: Shown("Verdict", marked=True),
        },
    ),
    Column("non_inferior", lambda p: p.non_inferior),
    Column("verdict", lambda p: p.verdict.sentence),
    Column("caveats", lambda p: p.verdict.caveats),
    Column(
        "per_class",
        lambda p: {
            key: {"mean_difference": s.mean_difference, "ci95": s.ci95, "cases": s.cases}
            for key, s in p.per_class.items()
        },
    ),
    Column(
        "time_ratio", lambda p: p.time_ratio, ratio,
        shown={
            CSV: "",
            TERMINAL: Shown("×", priority=5, value=lambda p: p.time_ratio or None),
            PAPER: "Time",
            SUMMARY: Shown("Time", instead=lambda line: hours(line.result.cost.seconds)),
            COST: Shown("Time ×", instead=lambda line: MISSING if line.pair else "baseline"),
        },
    ),
    Column(
        "energy_ratio", lambda p: p.energy_ratio, ratio,
        shown={
            CSV: "",
            TERMINAL: Shown("×", priority=6, value=lambda p: p.energy_ratio or None),
            PAPER: "Energy",
            SUMMARY: Shown("Energy", instead=_kwh_of),
            COST: "Energy ×",
        },
    ),
    Column("co2_ratio", lambda p: p.co2_ratio, shown={CSV: ""}),
    Column("flops_ratio", lambda p: p.flops_ratio),
    Column("memory_ratio", lambda p: p.memory_ratio),
    Column(
        "reached_baseline", lambda p: p.reached_baseline, _when_reached,
        shown={
            TERMINAL: Shown(
                "To base Dice", priority=13, text=hours,
                value=lambda p: p.reached_baseline.seconds if p.reached_baseline else None,
            ),
            COST: Shown(
                "To the baseline's Dice", hint="training time until its final pseudo Dice was reached",
                sort=lambda reached: reached.seconds, instead=lambda _: "",
            ),
        },
    ),
)  # fmt: skip

SEED_PAIR: tuple[Column[SeedPair], ...] = (
    Column("task", lambda p: p.task),
    Column("scheme", lambda p: p.group.name),
    Column("baseline", lambda p: p.baseline.name),
    *_PAIRED,
    Column("ci95_seeds", lambda p: p.ci95_seeds),
    Column("wilcoxon_p_holm", lambda p: p.wilcoxon_p_holm),
    Column("time_ratio", lambda p: p.time_ratio),
    Column("energy_ratio", lambda p: p.energy_ratio),
    Column("outcome", lambda p: p.verdict.outcome),
    Column("verdict", lambda p: p.verdict.sentence),
    Column("caveats", lambda p: p.verdict.caveats),
)

SEED_GROUP: tuple[Column[SeedGroup], ...] = (
    Column("task", lambda g: g.task),
    Column("scheme", lambda g: g.name, shown={SEEDS: "Scheme"}, numeric=False),
    Column("runs", lambda g: [r.run.name for r in g.runs]),
    Column(
        "seeds", lambda g: [r.run.provenance.seed for r in g.runs], lambda seeds: ", ".join(map(str, seeds)),
        shown={SEEDS: "Seeds"}, numeric=False,
    ),
    Column("mean_dice", lambda g: g.mean_dice, _DICE, shown={SEEDS: "Mean Dice"}),
    Column("sd", lambda g: g.sd, _DICE, shown={SEEDS: "SD"}),
    Column("lowest", lambda g: g.lowest, _DICE, shown={SEEDS: "Lowest"}),
    Column("highest", lambda g: g.highest, _DICE, shown={SEEDS: "Highest"}),
)  # fmt: skip

STANDING: tuple[Column[Standing], ...] = (
    Column("mean_rank", lambda s: s.mean_rank, _TWO_DIGITS, shown={TERMINAL_RANKING: "Rank", RANKING: "Mean rank"}),
)  # fmt: skip

ACROSS: tuple[Column[AcrossTasks], ...] = (
    Column("training", lambda a: a.training),
    Column("tasks", lambda a: a.tasks),
    Column(
        "wins", lambda a: a.wins,
        shown={
            TERMINAL_RANKING: Shown("Wins*", value=lambda a: f"{a.wins} ({a.clear_wins})", instead=_baseline),
            RANKING: Shown(
                "Wins", value=lambda a: (a.wins, a.clear_wins), text="{0[0]} ({0[1]} clear)".format,
                sort=lambda counts: counts[0], instead=_baseline,
            ),
        },
    ),
    Column(
        "losses", lambda a: a.losses,
        shown={
            TERMINAL_RANKING: Shown("Losses*", value=lambda a: f"{a.losses} ({a.clear_losses})"),
            RANKING: Shown(
                "Losses", value=lambda a: (a.losses, a.clear_losses), text="{0[0]} ({0[1]} clear)".format,
                sort=lambda counts: counts[0],
            ),
        },
    ),
    Column("ties", lambda a: a.ties),
    Column("clear_wins", lambda a: a.clear_wins),
    Column("clear_losses", lambda a: a.clear_losses),
    Column("not_worse", lambda a: a.not_worse),
    Column("mean_difference", lambda a: a.mean_difference),
    Column(
        "mean_relative_gain_percent", lambda a: a.mean_relative_gain, percent,
        shown={TERMINAL_RANKING: "Gain", RANKING: "Relative gain"},
    ),
    Column("relative_gain_ci95_percent", lambda a: a.relative_gain_ci95),
    Column("wilcoxon_p", lambda a: a.wilcoxon_p, p_text, shown={RANKING: "p over tasks"}),
    Column(
        "time_ratio", lambda a: a.time_ratio, ratio,
        shown={TERMINAL_RANKING: Shown("Time", value=lambda a: a.time_ratio or None), RANKING: "Time"},
    ),
    Column(
        "energy_ratio", lambda a: a.energy_ratio, ratio,
        shown={TERMINAL_RANKING: Shown("Energy", value=lambda a: a.energy_ratio or None), RANKING: "Energy"},
    ),
    Column("co2_ratio", lambda a: a.co2_ratio),
    Column("verdict", lambda a: a.verdict),
)  # fmt: skip


def of_lines() -> Sequence[Group[Line]]:
    """Return the columns of a table with one row per run."""
    return ((RUN, lambda line: line.result), (PAIR, lambda line: line.pair))


def of_standings() -> Sequence[Group[Standing]]:
    """Return the columns of a table with one row per training, over all tasks."""
    return ((STANDING, lambda standing: standing), (ACROSS, lambda standing: standing.across))


def of_seed_groups() -> Sequence[Group[SeedGroup]]:
    """Return the columns of a table with one row per scheme, over its seeds."""
    return ((SEED_GROUP, lambda group: group),)
