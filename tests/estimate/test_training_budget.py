"""Trainings with a budget on simulated machines: they end on time whatever the machine does."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppgs.errors import BadInput
from ppgs.estimate import training_budget
from ppgs.estimate.training_budget import Decision, Guess, deadline, decide, iterations_that_suit, parse_until
from ppgs.runs.time_left import validation_seconds
from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.replan import in_parts
from tests.helpers.facts import HIPPOCAMPUS as FACTS

BEGIN = 1_800_000_000.0


@dataclass(frozen=True)
class Asked:
    budget: str | None = None
    until: str | None = None


@dataclass
class Machine:
    """Simulated speed: a step costs `fixed` of its time at the full patch whatever the patch is.

    `level` is how much slower the machine is at a time since the training's begin.
    """

    step: float = 0.1
    fixed: float = 0.08
    forward: float = 3.4
    rest: float = 0.2
    noise: float = 0.05
    level: Callable[[float], float] = lambda now: 1.0
    validation: float = 1.0
    watts: float = 200.0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def epoch(self, schedule: Schedule, stage: int, now: float) -> tuple[float, float, float]:
        """Seconds of training, validation and the rest."""
        work = [s.voxels * s.batch_size for s in schedule.stages]
        step = self.step * (self.fixed + (1 - self.fixed) * work[stage] / max(work))
        factor = self.level(now) * math.exp(self.random.gauss(0, self.noise))
        count = schedule.validation_iterations_at(schedule.first_epoch(stage))
        return factor * step * schedule.iterations_per_epoch, factor * self.step / self.forward * count, self.rest


def described(schedule: Schedule) -> list[dict[str, Any]]:
    return [
        {
            "patch_size": s.patch_size,
            "batch_size": s.batch_size,
            "epochs": s.epochs,
            "voxels": s.voxels,
            "validation_iterations": schedule.validation_iterations_at(schedule.first_epoch(i)),
        }
        for i, s in enumerate(schedule.stages)
    ]


def train(
    shape: Schedule,
    asked: Asked,
    machine: Machine,
    *,
    guessed: float | None = 1.0,
    final: dict[str, int] | None = None,
    stops: tuple[int, ...] = (),
    decided: Callable[[Decision], object] = lambda _: None,
) -> tuple[Schedule, list[dict[str, Any]], float, float]:
    """Train to the end; returns the schedule, the log, seconds worked and watt-hours spent.

    `guessed` is the error of the calibration, None without one; `stops` are epochs after which the process stops for a
    day, and the last epoch is trained again.
    """
    schedule, now, worked, energy, records = in_parts(shape), BEGIN, 0.0, 0.0, []
    stops_left = list(stops)

    def start(epoch: int) -> None:
        records.append({"type": "preparing", "time": now, "step": "starting", "done": 0, "total": 0})
        records.append({"type": "run_started", "time": now, "epoch": epoch, "iteration": 0, "epochs": schedule.epochs,
                        "iterations_per_epoch": schedule.iterations_per_epoch, "stages": described(schedule),
                        "final_validation": final})  # fmt: skip

    def guess(schedule: Schedule) -> Guess | None:
        if guessed is None:
            return None
        work = [s.voxels * s.batch_size for s in schedule.stages]
        steps = [guessed * machine.step * w / max(work) for w in work]
        return Guess(tuple(steps), guessed * machine.step / machine.forward)

    start(0)
    epoch = 0
    while epoch < schedule.epochs:
        if schedule.settled < len(schedule.stages) and epoch == schedule.decision_epoch:
            decision = decide(schedule, records, asked, now=now, guess=guess)
            assert decision.epoch == epoch
            decided(decision)
            schedule = decision.schedule
            records.append({"type": "budget_planned", "time": now, "epoch": epoch, "epochs": schedule.epochs,
                            "stages": described(schedule)})  # fmt: skip
        stage = schedule.stage_index_at(epoch)
        train, validation, rest = machine.epoch(schedule, stage, worked)
        seconds = train + validation + rest
        now, worked, energy = now + seconds, worked + seconds, energy + machine.watts * seconds / 3600
        records.append({"type": "epoch_finished", "time": now, "epoch": epoch, "stage": stage, "seconds": seconds,
                        "train_seconds": train, "validation_seconds": validation,
                        "energy_wh": machine.watts * seconds / 3600})  # fmt: skip
        epoch += 1
        if stops_left and epoch >= stops_left[0] and epoch > 1:
            stops_left.pop(0)
            now += 86_400
            epoch -= 1
            start(epoch)
    each = machine.step / machine.forward * machine.level(worked)
    truth = validation_seconds(final, each, schedule.stages[-1].batch_size) or 0.0
    truth *= machine.validation
    return schedule, records, worked + truth, energy + machine.watts * truth / 3600


def a_shape(mode: str = "efficiency", iterations: int = 20) -> Schedule:
    return resolve(Recipe(mode=mode, epochs=100_000, iterations_per_epoch=iterations), FACTS)  # type: ignore[arg-type]


FINAL = {"cases": 40, "windows": 60, "passes": 8}
modes = st.sampled_from(["efficiency", "performance", "constant", "random", "pgps-2024", "pgps-plus-2024", "auto"])


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    modes,
    st.integers(0, 10**6),
    st.floats(0.02, 0.15),
    st.floats(0.0, 0.3),
    st.floats(2.5, 5.0),
    st.floats(0.3, 3.0),
    st.floats(0.8, 1.25),
)
def test_it_ends_within_three_percent(
    mode: str, seed: int, noise: float, fixed: float, forward: float, guessed: float, validation: float
) -> None:
    # Noise, a network and a final validation other than the model's, a calibration that is wrong by a factor of three.
    machine = Machine(noise=noise, fixed=fixed, forward=forward, validation=validation, random=random.Random(seed))
    _, _, seconds, _ = train(a_shape(mode), Asked("20m"), machine, guessed=guessed, final=FINAL)
    assert abs(seconds / 1200 - 1) < 0.03


@settings(deadline=None, max_examples=40)
# Just after a decision, so that the whole part that it settled is slow.
@example("constant", 0, 2.5, 0.5, 1.0)
@example("constant", 0, 2.5, 0.0779, 1.176)
@given(modes, st.integers(0, 10**6), st.floats(0.4, 2.5), st.floats(0.0, 0.85), st.floats(0.8, 1.25))
def test_it_follows_a_machine_that_others_use(mode: str, seed: int, factor: float, when: float, drift: float) -> None:
    # Others come or go at some time, and the machine drifts all the while.
    machine = Machine(
        random=random.Random(seed),
        level=lambda now: (factor if now > when * 1200 else 1.0) * drift ** (now / 1200),
    )
    _, _, seconds, _ = train(a_shape(mode), Asked("20m"), machine, final=FINAL)
    assert abs(seconds / 1200 - 1) < 0.03


@settings(deadline=None, max_examples=30)
@given(modes, st.integers(0, 10**6), st.lists(st.integers(1, 200), max_size=4))
def test_interruptions_count_only_the_time_trained(mode: str, seed: int, stops: list[int]) -> None:
    machine = Machine(random=random.Random(seed))
    _, _, seconds, _ = train(a_shape(mode), Asked("20m"), machine, final=FINAL, stops=tuple(sorted(stops)))
    assert abs(seconds / 1200 - 1) < 0.03


@pytest.mark.parametrize("mode", ["efficiency", "constant"])
def test_without_a_calibration_the_first_stage_is_one(mode: str) -> None:
    schedule, _, seconds, _ = train(a_shape(mode), Asked("20m"), Machine(), guessed=None, final=FINAL)
    assert schedule.stages[0].epochs == 2
    assert abs(seconds / 1200 - 1) < 0.03


@pytest.mark.parametrize("mode", ["efficiency", "constant"])
def test_a_budget_of_energy(mode: str) -> None:
    _, _, _, energy = train(a_shape(mode), Asked("100Wh"), Machine(watts=250), final=FINAL)
    assert abs(energy / 100 - 1) < 0.03
    with pytest.raises(BadInput, match="not measured"):
        train(a_shape(mode), Asked("100Wh"), Machine(watts=0.0), final=FINAL)


@pytest.mark.parametrize("mode", ["efficiency", "constant"])
def test_a_deadline_is_kept(mode: str) -> None:
    until = parse_until("2027-01-15T08:30:00+00:00", BEGIN)
    whole = deadline(until) - BEGIN
    for seed in range(10):
        _, _, seconds, _ = train(a_shape(mode), Asked(until=until), Machine(random=random.Random(seed)), final=FINAL)
        assert -0.03 < seconds / whole - 1 < 0.005


def test_the_curriculum_keeps_its_shape() -> None:
    schedule, *_ = train(a_shape(), Asked("60m"), Machine(noise=0.02), guessed=1.0)
    counts = [s.epochs for s in schedule.stages[:14]] + [sum(s.epochs for s in schedule.stages[14:])]
    assert max(counts) - min(counts) <= 0.15 * max(counts)


def test_a_budget_that_is_too_small_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="one epoch in every stage"):
        train(a_shape(iterations=250), Asked("20s"), Machine())


def test_a_budget_that_the_final_validation_alone_exceeds_is_refused() -> None:
    slow = {**FINAL, "windows": 60_000}
    with pytest.raises(BadInput, match="the final validation"):
        train(a_shape(), Asked("2m"), Machine(), final=slow)


@pytest.mark.parametrize(("budget", "is_late"), [("15s", True), ("20m", False)])
def test_an_end_that_will_be_late_is_told(budget: str, is_late: bool) -> None:
    told: list[float] = []
    _, _, seconds, _ = train(a_shape(), Asked(budget), Machine(), final=FINAL, decided=lambda d: told.append(d.late))
    assert (max(told) > 0) is is_late
    if is_late:
        assert told[0] == pytest.approx(seconds - 15, rel=0.3)


def test_nothing_is_late_where_nothing_is_known() -> None:
    told: list[float] = []
    train(a_shape(), Asked("20m"), Machine(), guessed=None, final=FINAL, decided=lambda d: told.append(d.late))
    assert max(told) == 0


def test_a_measured_pass_counts_for_the_final_validation() -> None:
    found, guess = [], Guess((0.1,), 0.01)
    for one in (None, 0.5):
        work = {**FINAL, "start_seconds": 0, "pass_seconds": one}
        records = [{"type": "run_started", "time": BEGIN, "final_validation": work}]
        decision = decide(in_parts(a_shape()), records, Asked("20m"), now=BEGIN, guess=lambda _: guess)
        found.append(decision.validation)
    assert found[0] < 10 and found[1] == pytest.approx(0.5 * 60 * 8, rel=0.02)


def test_epochs_are_short_enough_to_end_on_time() -> None:
    guess = Guess((0.1, 2.0), 0.5)
    assert iterations_that_suit(250, Asked("10h"), guess, 0.0) == 250
    assert iterations_that_suit(250, Asked("10m"), guess, 0.0) == int(0.02 * 600 / 2.1)
    assert iterations_that_suit(250, Asked("10s"), guess, 0.0) == 1
    assert iterations_that_suit(250, Asked("10m"), None, 0.0) == 250
    assert iterations_that_suit(250, Asked("1kWh"), guess, 0.0) == 250


def test_a_time_to_end_at() -> None:
    assert parse_until("job") == "job"
    assert parse_until("2030-01-01T07:00+01:00", BEGIN) == "2030-01-01T07:00:00+01:00"
    tomorrow = deadline(parse_until("07:00", BEGIN)) - BEGIN
    assert 0 < tomorrow <= 86_400 + 3600
    for wrong in ("25:00", "soon", "2020-01-01T07:00", ""):
        with pytest.raises(BadInput):
            parse_until(wrong, BEGIN)


def test_the_end_of_a_slurm_job() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "15400"}
    assert deadline("job", job) == 15400 - 120
    short = {**job, "SLURM_JOB_END_TIME": "1240"}
    assert deadline("job", short) == 1240 - 60
    assert deadline("job", {**job, "PPGS_SLURM_WARNING": "600"}) == 15400 - 600
    with pytest.raises(BadInput, match="no Slurm job"):
        deadline("job", {})


@pytest.mark.parametrize(
    ("asked", "epochs", "energy"),
    [
        (Asked("2h", "job"), None, True),
        (Asked("2h"), 100, True),
        (Asked(until="job"), 100, True),
        (Asked("2kWh"), None, False),
        (Asked("50%"), None, True),
        (Asked("soon"), None, True),
    ],
)
def test_contradictions_are_refused(asked: Asked, epochs: int | None, energy: bool) -> None:
    with pytest.raises(BadInput):
        training_budget.check(asked, epochs=epochs, energy=energy)


def test_what_is_no_contradiction() -> None:
    for asked in (Asked(), Asked("2h"), Asked(until="job"), Asked("2kWh")):
        training_budget.check(asked, epochs=None, energy=True)
    training_budget.check(Asked(), epochs=100, energy=False)


def test_a_budget_of_energy_corrects_the_last_stage_as_often_as_one_of_time() -> None:
    """Nothing is known of its first plan, which must not merge the parts of the last stage."""
    for asked in (Asked("30m"), Asked("50Wh")):
        schedule, *_ = train(a_shape(), asked, Machine())
        last = [s.epochs for s in schedule.stages if s.like(schedule.stages[-1])]
        assert len(last) == 8, (asked, last)


def test_a_warm_up_longer_than_the_budget_is_refused_before_it_begins() -> None:
    rate = LearningRate(warmup=100)
    shape = resolve(Recipe(epochs=100_000, iterations_per_epoch=20, learning_rate=rate), FACTS)
    with pytest.raises(BadInput, match="a warm-up of 100 epochs leaves none"):
        train(shape, Asked("1m"), Machine())
    schedule, *_ = train(shape, Asked("30m"), Machine())
    assert schedule.epochs > 100


def test_a_training_that_becomes_too_slow_for_its_warm_up_goes_on() -> None:
    rate = LearningRate(warmup=140)
    shape = resolve(Recipe(epochs=100_000, iterations_per_epoch=20, learning_rate=rate), FACTS)
    schedule, *_ = train(shape, Asked("2m"), Machine(), guessed=0.1)
    assert schedule.epochs <= 140


def test_a_clock_time_is_meant_as_the_clock_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        evening = datetime.fromisoformat("2026-03-28T23:00+01:00").timestamp()
        assert parse_until("07:00", evening) == "2026-03-29T07:00:00+02:00"
        assert parse_until("2026-03-29T07:00", evening) == "2026-03-29T07:00:00+02:00"
    finally:
        monkeypatch.undo()
        time.tzset()
    with pytest.raises(BadInput):
        parse_until("0001-01-01T00:00", BEGIN)
