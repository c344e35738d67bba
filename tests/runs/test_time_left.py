"""The time left, on logs that follow the law, on recorded ones, and on garbage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ppgs.formatting import time_left
from ppgs.runs.events import Record, read_events
from ppgs.runs.state import RunState
from ppgs.runs.time_left import EpochTimes, Forecast, Span, StageFacts, validation_left, validation_seconds
from ppgs.tui.source import ViewState

DATA = Path(__file__).parent / "data"
EDGES = (8, 12, 16, 24, 32)
ITERATIONS = 20
# As the law has it beforehand: the last stage's step takes 3.4 forward passes, 8 % of it whatever the patch.
FORWARD, STEP, FIXED = 0.1, 0.34, 0.08


def a_log(
    per_stage: int = 4,
    *,
    step: float = STEP,
    fixed: float = FIXED,
    slower: Callable[[int], float] = lambda epoch: 1.0,
    final: dict[str, int] | dict[str, float] | None = None,
    interval: int = 1,
) -> list[Record]:
    """A run whose epochs take what the law says, `slower(epoch)` times as long; one of `interval` is validated."""
    stages = [
        {"patch_size": [e] * 3, "batch_size": 2, "epochs": per_stage, "voxels": e**3, "validation_iterations": n,
         "validation_interval": interval if e < EDGES[-1] else 1}
        for e, n in zip(EDGES, (1, 1, 1, 2, 4), strict=True)
    ]  # fmt: skip
    started = {"epoch": 0, "iteration": 0, "epochs": per_stage * len(EDGES), "iterations_per_epoch": ITERATIONS}
    records: list[Record] = [{"type": "run_started", "time": 0.0, **started, "stages": stages}]
    if final is not None:
        records[0]["final_validation"] = final
    now = 0.0
    for epoch in range(per_stage * len(EDGES)):
        stage = epoch // per_stage
        share = EDGES[stage] ** 3 / EDGES[-1] ** 3
        factor = slower(epoch) * (3.0 if epoch == 0 else 1.0)
        train = factor * ITERATIONS * step * (fixed + (1 - fixed) * share)
        is_validated = stage == len(EDGES) - 1 or epoch % per_stage % interval == 0
        validation = factor * FORWARD * (1, 1, 1, 2, 4)[stage] * is_validated
        records.append({"type": "iterations", "time": now, "epoch": epoch, "stage": stage, "iteration": ITERATIONS // 2,
                        "iterations": ITERATIONS, "phase": "train", "loss": 1.0})  # fmt: skip
        now += train + validation
        times = {"seconds": train + validation, "train_seconds": train, "validation_seconds": validation}
        records.append({"type": "epoch_finished", "time": now, "epoch": epoch, "stage": stage, **times})
    records.append({"type": "run_finished", "time": now})
    return records


def estimates(records: list[Record], *, kind: str = "epoch_finished") -> list[tuple[Record, Span, float]]:
    """Every estimate from the second epoch on, with the time that was left in truth."""
    state, found = RunState(), []
    for record in records:
        state.apply(record)
        if record["type"] == kind and state.epoch > 1 and (left := state.left) is not None:
            found.append((record, left, records[-1]["time"] - record["time"]))
    return found


def test_exact_where_the_log_follows_the_law() -> None:
    for _, left, truth in estimates(a_log()):
        assert left.middle == pytest.approx(truth, rel=1e-6, abs=1e-6)
        assert left.low <= truth + 1e-6 and truth <= left.high + 1e-6


@pytest.mark.parametrize(("step", "fixed"), [(0.25, 0.0), (0.32, 0.2), (0.4, 0.05), (0.3, 0.4)])
def test_near_where_another_network_has_other_constants(step: float, fixed: float) -> None:
    errors = [abs(left.middle / truth - 1) for _, left, truth in estimates(a_log(step=step, fixed=fixed))[:-1]]
    assert median(errors) < 0.12
    assert max(errors) < 0.2
    # In the last stage nothing is a guess any more.
    assert max(errors[-3:]) < 0.03


def test_no_jump_where_a_stage_begins() -> None:
    found = estimates(a_log(step=0.27, fixed=0.15))
    for (first, before, _), (second, after, _) in pairwise(found):
        assert abs(second["time"] + after.middle - first["time"] - before.middle) <= 0.12 * before.middle


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.floats(0.1, 0.6), st.floats(0.0, 0.6))
def test_the_time_left_falls_while_the_training_goes_on(per_stage: int, step: float, fixed: float) -> None:
    records, state, last = a_log(per_stage, step=step, fixed=fixed), RunState(), math.inf
    for record in records:
        state.apply(record)
        # A new epoch's time may change what is expected; half an epoch without news does not.
        if record["type"] == "iterations":
            assert (left := state.seconds_left) is None or left < last
        last = state.seconds_left or math.inf


def test_a_machine_that_is_slower_from_now_on_is_followed() -> None:
    found = estimates(a_log(6, slower=lambda epoch: 3.0 if epoch >= 12 else 1.0))
    # Ten epochs later all of what is looked at is slow.
    errors = [abs(left.middle / truth - 1) for record, left, truth in found if 21 <= record["epoch"] < 29]
    assert median(errors) < 0.1


def test_an_accident_moves_little() -> None:
    usual = estimates(a_log(6))
    for epoch in (7, 13, 20):
        disturbed = estimates(a_log(6, slower=lambda e, at=epoch: 20.0 if e == at else 1.0))  # type: ignore[misc]
        for (record, left, _), (_, other, _) in zip(usual, disturbed, strict=True):
            assert abs(other.middle / left.middle - 1) < 0.4 if record["epoch"] < 28 else True


def test_pauses_and_what_a_process_begins_with_do_not_count() -> None:
    records = a_log()
    at = next(i for i, r in enumerate(records) if r.get("epoch") == 9 and r["type"] == "epoch_finished")
    stopped = {"type": "run_stopped", "time": records[at]["time"], "reason": "asked"}
    again = {**records[0], "time": records[at]["time"] + 1e6, "epoch": 10, "iteration": 15}
    # Five iterations are left of the epoch, and the process warms up.
    late = [{**r, "time": r["time"] + 1e6} for r in records[at + 1 :]]
    late[1] |= {"seconds": late[1]["seconds"] / 3, "train_seconds": late[1]["train_seconds"] / 3}
    expected = {r["epoch"]: left for r, left, _ in estimates(records)}
    for record, left, _ in estimates([*records[: at + 1], stopped, again, *late]):
        assert left.middle == pytest.approx(expected[record["epoch"]].middle, rel=0.02)


def test_the_final_validation_is_part_of_it() -> None:
    work = {"cases": 10, "windows": 40, "passes": 8}
    without, with_it = RunState(), RunState()
    without.apply_all(a_log()[:7])
    with_it.apply_all(a_log(final=work)[:7])
    # A window is one sample of a validation batch of two.
    assert with_it.left is not None and without.left is not None and with_it.training_left == without.left
    assert 40 * 8 * FORWARD / 2 < with_it.left.middle - without.left.middle < 40 * 8 * FORWARD / 2 + 10


def test_a_window_alone_takes_longer_than_in_a_batch() -> None:
    work = {"cases": 10, "windows": 40, "passes": 8, "start_seconds": 0}
    assert validation_seconds(work, 0.2, 20) == pytest.approx(40 * 8 * 0.01, rel=0.2)
    measured = {**work, "pass_seconds": 0.05}
    for each in (0.2, None):
        assert validation_seconds(measured, each, 20) == pytest.approx(40 * 8 * 0.05, rel=0.1)
    assert validation_seconds({**measured, "pass_seconds": None}, 0.2, 20) == validation_seconds(work, 0.2, 20)
    assert validation_seconds({**measured, "pass_seconds": None}, None, 20) is None


def test_the_final_validation_is_measured_while_it_runs() -> None:
    expected = Span(50.0, 100.0, 200.0)
    assert validation_left(None, 5.0, 0, 10) is None
    before = validation_left(expected, 30.0, 0, 10)
    assert before is not None and before.middle == pytest.approx(70)
    half = validation_left(expected, 100.0, 5, 10)
    assert half is not None and 50 < half.middle < 100
    assert half.high - half.low < (before.high - before.low) * half.middle / before.middle
    end = validation_left(expected, 200.0, 10, 10)
    assert end is not None and end.middle == 0
    assert validation_left(expected, 1.0, 3, 0) is None


def test_a_budget_can_ask_for_stages_that_were_not_trained() -> None:
    stages = [StageFacts((e,) * 3, 2, 4, float(e**3), 1) for e in EDGES]
    measured = [EpochTimes(0, 1.0, 0.1, 0.0), EpochTimes(1, 1.2, 0.1, 0.0)]
    forecast = Forecast(stages, ITERATIONS, measured)
    costs = [forecast.epoch_seconds(StageFacts((e,) * 3, 2, 1, float(e**3), 1)) for e in (10, 20, 28)]
    assert costs == sorted(costs) and costs[0] > 0
    assert forecast.training().middle == pytest.approx(sum(4 * s for s in forecast.stage_seconds), rel=0.1)
    with pytest.raises(ValueError, match="no epoch"):
        Forecast(stages, ITERATIONS, [])


def test_epochs_that_are_not_validated_neither_count_as_fast_nor_hide_what_validation_costs() -> None:
    # Validation is most of the time of small stages.
    records = a_log(10, step=FORWARD / 4, interval=5)
    found = [one for one in estimates(records) if one[0]["epoch"] >= 2]
    assert median(abs(left.middle / truth - 1) for _, left, truth in found if truth > 0) < 0.1
    state = RunState().apply_all(records[:-1])
    times = [r["seconds"] for r in records if r["type"] == "epoch_finished"]
    assert state.stage_seconds is not None
    for stage, seconds in enumerate(state.stage_seconds[1:], 1):
        assert seconds == pytest.approx(sum(times[10 * stage : 10 * stage + 10]) / 10, rel=0.02)


def test_half_of_the_estimates_of_a_recorded_demo_are_within_15_percent() -> None:
    # Recorded in CPU seconds of one thread, without the final validation (`benchmarks/results/time_left.md`).
    found = estimates(read_events(DATA / "demo_cpu_seconds.jsonl"))
    errors = [abs(left.middle / truth - 1) for record, left, truth in found if record["epoch"] >= 4 and truth > 0]
    assert sum(error <= 0.15 for error in errors) > 0.6 * len(errors)


def test_logs_of_earlier_versions_have_an_estimate() -> None:
    records = a_log()
    for stage in records[0]["stages"]:
        del stage["validation_iterations"]
    for record in records:
        record.pop("train_seconds", None)
        record.pop("validation_seconds", None)
    errors = [abs(left.middle / truth - 1) for _, left, truth in estimates(records)[:-1]]
    assert median(errors) < 0.2


junk = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=3)
numbers = st.none() | st.floats(-1e3, 1e15) | st.integers(-5, 10**6)
epochs = st.fixed_dictionaries(
    {"type": st.just("epoch_finished"), "epoch": st.integers(0, 22), "stage": st.integers(0, 6), "seconds": numbers},
    optional={"train_seconds": numbers | junk, "validation_seconds": numbers | junk, "unknown": junk},
)
starts = st.builds(
    lambda base, epoch, iteration, more: {**base, "epoch": epoch, "iteration": iteration, **more},
    st.just(a_log()[0]), st.integers(0, 21), st.integers(0, 30),
    st.dictionaries(st.sampled_from(["final_validation", "processes", "unknown"]), junk | st.dictionaries(
        st.sampled_from(["cases", "windows", "passes", "pass_seconds"]), junk)),
)  # fmt: skip
others = st.sampled_from(
    [
        {"type": "iterations", "epoch": 3, "stage": 0, "iteration": 30, "iterations": 20, "phase": "validation"},
        {"type": "iterations", "epoch": 3, "stage": 0, "iteration": 5, "iterations": 0, "phase": "train"},
        {"type": "validation_started", "cases": 5, "time": 3.0},
        {"type": "validation_progress", "done": 9, "total": 5, "time": 1.0},
        {"type": "unheard_of"},
    ]
)


# No clock measures so short a validation; its square is 0.
_TINY = {"type": "epoch_finished", "stage": 0, "seconds": 1.0, "train_seconds": 1, "validation_seconds": 3e-94}
# Durations that are so far apart that sums of squares differ by rounding alone.
_APART = {**_TINY, "stage": 4, "seconds": 1, "train_seconds": 1.7754323486576677e-05, "validation_seconds": 736}


@settings(deadline=None, max_examples=300)
@example([{**_TINY, "epoch": 0}])
@example([{**_APART, "epoch": 0}])
@given(st.lists(epochs | starts | others, max_size=15))
@pytest.mark.slow
def test_never_negative_nor_nan_whatever_a_log_says(records: list[dict[str, Any]]) -> None:
    state = RunState().apply_all([a_log()[0], *records])
    left = state.left
    if left is not None:
        assert 0 <= left.low <= left.middle <= left.high < math.inf
        assert time_left(left)
    for seconds in state.stage_seconds or ():
        assert 0 <= seconds < math.inf


@settings(deadline=None, max_examples=100)
@given(st.lists(epochs, max_size=15, unique_by=lambda r: r["epoch"]), st.integers(0, 3))
def test_the_monitor_says_the_same(records: list[dict[str, Any]], begun: int) -> None:
    plain, view = RunState(), ViewState()
    in_order = sorted(records, key=lambda record: record["epoch"])
    again = {**a_log()[0], "epoch": begun, "iteration": 3}
    for record in [a_log()[0], *in_order[:begun], again, *({**r, "stage": r["epoch"] // 5} for r in in_order)]:
        plain.apply(record)
        view.apply(record)
    if view.damaged == 0 and plain.left is not None:
        assert view.left is not None
        assert view.left.middle == pytest.approx(plain.left.middle)


def test_torn_and_unknown_records_change_nothing(tmp_path: Path) -> None:
    records = [{"v": 1, "seq": i, **r} for i, r in enumerate(a_log()[:20])]
    log = tmp_path / "events.jsonl"
    lines = [json.dumps(record) for record in records]
    log.write_text("\n".join([*lines[:5], '{"torn', '{"v": 1, "seq": 5, "type": "new"}', *lines[5:], lines[5][:9]]))
    expected = RunState().apply_all(records).left
    assert RunState().apply_all(read_events(log)).left == expected


@pytest.mark.parametrize(
    ("low", "middle", "high", "text"),
    [
        (40, 42, 44, "about 42 s"), (600, 700, 840, "10-14 min"), (690, 710, 740, "about 12 min"),
        (0, 0, 0, "about 0 s"), (200, 204, 210, "about 3.4 min"), (3600, 7200, 10800, "1-3 h"),
        (5 * 86400, 6 * 86400, 9 * 86400, "5-9 days"), (50, 80, 130, "0.8-2.2 min"), (10.1, 10.2, 13, "10-13 s"),
    ],
)  # fmt: skip
def test_the_words(low: float, middle: float, high: float, text: str) -> None:
    assert time_left(Span(low, middle, high)) == text
    assert time_left(None) == "-"


def test_an_uncalibrated_range_is_marked_even_in_a_sum() -> None:
    rough = Span(3600, 7200, 10800, uncalibrated=True)
    assert time_left(rough) == "1-3 h (uncalibrated)"
    assert (Span(0, 0, 0) + rough).uncalibrated
    assert rough.times(2) == Span(7200, 14400, 21600, uncalibrated=True)


def _planned(**extra: object) -> dict[str, object]:
    stages = [
        {"patch_size": [8, 8, 8], "batch_size": 2, "epochs": epochs, "voxels": 512, "epoch_seconds": times, **extra}
        for epochs, times in ((10, [1, 2, 4]), (5, [10, 20, 40]))
    ]
    return {"type": "run_started", "time": 0.0, "epoch": 0, "epochs": 15, "iterations_per_epoch": 4, "stages": stages}


def test_before_the_first_epoch_the_estimate_counts() -> None:
    state = RunState().apply_all([_planned()])
    assert state.left == Span(60, 120, 240, uncalibrated=True)
    state.epoch = 12
    assert state.left == Span(30, 60, 120, uncalibrated=True)
    assert RunState().apply_all([_planned(calibrated=True)]).left == Span(60, 120, 240)


@pytest.mark.parametrize("value", [None, [1, 2], [1, 2, "3"], [1, -2, 3], "long"])
def test_an_estimate_that_is_no_time_is_left_out(value: object) -> None:
    assert RunState().apply_all([_planned(epoch_seconds=value)]).left is None


def test_an_epoch_that_was_trained_replaces_the_estimate() -> None:
    epoch = {"type": "epoch_finished", "epoch": 0, "stage": 0, "seconds": 3.0, "train_seconds": 2.5,
             "validation_seconds": 0.4}  # fmt: skip
    state = RunState().apply_all([_planned(), epoch])
    assert state.left is not None
    assert not state.left.uncalibrated
