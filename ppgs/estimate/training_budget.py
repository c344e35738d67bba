"""Trainings that end on time: the rest of a budget, and how many epochs fit into it.

A decision is a pure function of the event log, the schedule and the clock; `ppgs.schedule.replan` has the rule and
`ppgs.runs.time_left` the model of time, which is also the viewers'.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from ppgs.errors import BadInput
from ppgs.estimate.budget import parse_budget
from ppgs.runs.events import Record
from ppgs.runs.state import RunState
from ppgs.runs.time_left import RECENT, validation_seconds
from ppgs.schedule import Schedule
from ppgs.schedule.replan import begun, planned

# An epoch of the last stage takes no larger part of the budget, unless its iterations are given: the end is rounded to
# half an epoch.
GRAIN = 0.02
# Share of the time until a deadline that is kept free: better early than late.
_EARLY = 0.01
# Epochs of the first stage on an unknown machine: enough to measure it.
_UNKNOWN_EPOCHS = 2
# The variable that says how many seconds before the end of its job Slurm's warning stops a training.
WARNING = "PPGS_SLURM_WARNING"
# Time to finish an iteration and write a checkpoint before the job is killed.
_WARNING = 120.0
# A budget is refused where one epoch in every stage, and the final validation, are expected to take this many times as
# long.
_HOPELESS = 3.0
# Share of the whole time by which a training may end late, as predicted, without a warning: predictions are no better.
_MENTIONED = 0.03
# Seconds of an epoch besides training and validation (checkpoint, log), before any was measured.
_REST = 0.3


class Asked(Protocol):
    """The options of a run's request that set its end."""

    @property
    def budget(self) -> str | None: ...
    @property
    def until(self) -> str | None: ...


@dataclass(frozen=True)
class Guess:
    """Costs before any epoch was measured: seconds of an iteration of every stage, and of a validation iteration.

    `uncalibrated` says why they come from the card's published figures, None where they were measured.
    """

    iteration: tuple[float, ...]
    validation: float
    uncalibrated: str | None = None

    def epochs(self, schedule: Schedule) -> list[float]:
        """Return the seconds of an epoch of every stage."""
        return [
            schedule.iterations_per_epoch * self.iteration[min(i, len(self.iteration) - 1)]
            + schedule.mean_validation_iterations(i) * self.validation
            + _REST
            for i in range(len(schedule.stages))
        ]


@dataclass(frozen=True)
class Decision:
    """A schedule replanned from `epoch` on.

    `left` are the seconds planned for its remaining training (None before anything is measured), `late` those by which
    it ends late at best, 0 if on time.
    """

    schedule: Schedule
    epoch: int
    epoch_seconds: tuple[float, ...]
    left: float | None
    validation: float
    spent: float
    late: float


def check(asked: Asked, *, epochs: int | None, energy: bool) -> None:
    """Raise `BadInput` for a budget that cannot be read or contradicts other options."""
    if asked.budget is None and asked.until is None:
        return
    if asked.budget is not None and asked.until is not None:
        raise BadInput("a budget and a time to end contradict each other", "--until", "give one of them")
    if epochs is not None:
        option = "--budget" if asked.budget is not None else "--until"
        raise BadInput(f"{option} chooses the number of epochs", "--epochs", "leave --epochs out")
    if asked.budget is not None:
        kind = parse_budget(asked.budget).kind
        if kind == "share":
            raise BadInput(f"'{asked.budget}' is no time or energy", "--budget", "give a time (2h) or an energy (2kWh)")
        if kind == "energy" and not energy:
            raise BadInput("a budget of energy needs its measurement", "--no-energy", "leave --no-energy out")


def parse_until(text: str, now: float | None = None) -> str:
    """Parse `2026-12-01T07:00` or `07:00` (the next one) as a time with its zone; `job` stays: the Slurm job's end.

    Raises `BadInput` for a text that is no time, or one that is past.
    """
    if text == "job":
        return text
    present = datetime.fromtimestamp(time.time() if now is None else now)
    if re.fullmatch(r"\d{1,2}:\d{2}", text):
        hours, minutes = map(int, text.split(":"))
        if hours > 23 or minutes > 59:
            raise BadInput(f"'{text}' is no time", "--until", "give 07:00 or 2026-12-01T07:00")
        chosen = present.replace(hour=hours, minute=minutes, second=0, microsecond=0)
        # By the clock, which is set twice a year: the zone is that of the chosen day.
        chosen = (chosen + timedelta(days=chosen <= present)).astimezone()
    else:
        try:
            chosen = datetime.fromisoformat(text)
            chosen = chosen.astimezone() if chosen.tzinfo is None else chosen
        except (ValueError, OverflowError):
            raise BadInput(
                f"'{text}' is no time", "--until", "give 2026-12-01T07:00, 07:00, or job (the end of the Slurm job)"
            ) from None
    if chosen <= present.astimezone():
        raise BadInput(f"{chosen.isoformat(timespec='minutes')} is past", "--until", "give a time to come")
    return chosen.isoformat(timespec="seconds")


def deadline(until: str, environ: Mapping[str, str] = os.environ) -> float:
    """Return the unix time at which a training must end; a Slurm job's leaves time for its warning.

    Raises `BadInput` where it is the job's and there is none.
    """
    if until != "job":
        return datetime.fromisoformat(until).timestamp()
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        raise BadInput("this is no Slurm job", "--until job", "submit it with --slurm, or give a time")
    end = environ.get("SLURM_JOB_END_TIME") or _asked_slurm(job)
    begun = environ.get("SLURM_JOB_START_TIME")
    limit = float(end) - float(begun) if begun else float("inf")
    warning = environ.get(WARNING, "")
    return float(end) - (float(warning) if warning.isdigit() else usual_warning(limit))


def usual_warning(limit: float) -> float:
    """Return the seconds between Slurm's warning and the end of a job of `limit` seconds, unless others are given."""
    return min(_WARNING, limit / 4)


def _asked_slurm(job: str) -> str:
    command = ("squeue", "--noheader", "--job", job, "--format", "%e")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        return str(datetime.fromisoformat(answer[0]).timestamp())
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as problem:
        raise BadInput(f"the end of Slurm job {job} is not known: {problem}", "--until job", "give a time") from None


def seconds_in_all(asked: Asked, now: float) -> float | None:
    """Return the whole budget in seconds before any training; None for one of energy."""
    if asked.until is not None:
        return deadline(asked.until) - now
    assert asked.budget is not None
    budget = parse_budget(asked.budget)
    return budget.amount if budget.kind == "time" else None


def iterations_that_suit(most: int, asked: Asked, guess: Guess | None, now: float) -> int:
    """Return iterations per epoch, at most `most`, such that a last-stage epoch is a small part of the budget."""
    whole = seconds_in_all(asked, now)
    if guess is None or whole is None:
        return most
    # A fifth as many validation iterations, as in nnU-Net.
    each = guess.iteration[-1] + guess.validation / 5
    return max(1, min(most, int(GRAIN * whole / each)))


def decide(
    schedule: Schedule,
    records: Sequence[Record],
    asked: Asked,
    *,
    now: float,
    guess: Callable[[Schedule], Guess | None],
) -> Decision:
    """Plan the stages of `schedule` that are not settled, given the run's event log.

    Raises `BadInput` where not even one epoch in every stage and the final validation fit and nothing was trained yet,
    and where a budget of energy meets a machine whose energy is not measured.
    """
    state = RunState().apply_all(records)
    forecast, epoch = state.forecast, schedule.decision_epoch
    seconds: list[float] | None = None
    each = None
    if forecast is not None:
        seconds, each = forecast.coming_seconds, forecast.validation_iteration
    elif (guessed := guess(schedule)) is not None:
        seconds, each = guessed.epochs(schedule), guessed.validation
    batch = schedule.stages[-1].batch_size
    final = validation_seconds(state.final_validation, each, batch, state.processes) or 0.0
    left, spent = _left(state, records, asked, now)
    left = None if left is None else left - final
    if seconds is None or left is None:
        # Two epochs of the first stage measure the machine; the others keep their proportions until then.
        return Decision(begun(schedule, _UNKNOWN_EPOCHS), epoch, (), None, final, spent, 0.0)
    new = planned(schedule, seconds, left)
    least = _shortest(schedule, seconds)
    # Before any epoch was measured this is a rough guess, on a machine that others may have been using.
    if epoch == 0 and least + final > _HOPELESS * (left + final):
        raise BadInput(
            f"one epoch in every stage takes about {least:.0f} s, the final validation {final:.0f} s, "
            f"and the budget is {left + final:.0f} s",
            "--budget" if asked.budget is not None else "--until",
            "give more time, fewer --iterations, or a schedule with fewer stages",
        )
    if epoch == 0 and (problem := new.learning_rate.problem(new.epochs)) is not None:
        raise BadInput(
            f"about {new.epochs} epochs fit: {problem}",
            "learning_rate.warmup",
            "give more time, fewer --iterations, or a shorter warm-up",
        )
    late = least - left
    is_late = late > _MENTIONED * (state.worked + left + final)
    return Decision(new, epoch, tuple(seconds), left, final, spent, late if is_late else 0.0)


def _shortest(schedule: Schedule, seconds: Sequence[float]) -> float:
    """Return the seconds of an epoch of every remaining patch size."""
    done = schedule.settled
    coming = list(zip(schedule.stages[done:], seconds[done:], strict=True))
    return sum(
        each for i, (stage, each) in enumerate(coming) if i + 1 == len(coming) or not stage.like(coming[i + 1][0])
    )


def _left(state: RunState, records: Sequence[Record], asked: Asked, now: float) -> tuple[float | None, float]:
    """Return the seconds left (None while unknown) and the amount spent (seconds, or watt-hours)."""
    since = max(now - state.last_seen, 0.0) if state.last_seen is not None else 0.0
    worked = state.worked + since
    if asked.until is not None:
        end = deadline(asked.until)
        whole = end - (state.started if state.started is not None else now)
        return end - now - _EARLY * max(whole, 0.0), worked
    assert asked.budget is not None
    budget = parse_budget(asked.budget)
    if budget.kind == "time":
        return budget.amount - worked, worked
    epochs = [r for r in records if r["type"] == "epoch_finished"]
    measured = [r for r in epochs if isinstance(r.get("energy_wh"), (int, float)) and r["seconds"] > 0]
    if not epochs:
        return None, 0.0
    spent = sum(r["energy_wh"] for r in measured)
    recent = measured[-RECENT:]
    watt_hours, seconds = sum(r["energy_wh"] for r in recent), sum(r["seconds"] for r in recent)
    if not watt_hours > 0:
        raise BadInput(
            "the energy of this machine is not measured", "--budget", "give a time instead; see the run's warnings"
        )
    return (budget.amount - spent) * seconds / watt_hours, spent
