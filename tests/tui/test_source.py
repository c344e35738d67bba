"""Reading a run that is torn, garbled, truncated, replaced, gone, or strange."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot

from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Owner
from ppgs.runs.queue import write_job
from ppgs.runs.state import RunState
from ppgs.tui.app import MonitorApp
from ppgs.tui.series import Series
from ppgs.tui.source import LOG_BYTES, LogTail, ViewState, WatchedRun
from ppgs.tui.widgets.curves import thin
from ppgs.tui.widgets.status_bar import Notice
from ppgs.tui.widgets.time_split import shares
from tests.tui.conftest import NOW, PATCHES, Open, drive, make_run, records_until, settled, write_events


def catch_up(run: WatchedRun) -> WatchedRun:
    while run.take(run.read()):
        pass
    return run


def numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"v": 1, "seq": i, "time": NOW + i, **r} for i, r in enumerate(records)]


@pytest.mark.parametrize(
    ("status", "shown"), [(s, s) for s in ("preparing", "training", "validating", "finished", "stopped", "failed")]
    + [("presumed dead", "presumed dead")],
)  # fmt: skip
def test_status(results: Path, status: str, shown: str) -> None:
    assert catch_up(WatchedRun(make_run(results, status))).status == shown


def test_bounded_state_says_what_the_full_state_says() -> None:
    for status in ("training", "finished", "stopped", "failed"):
        records = numbered(records_until(status))
        view, full = ViewState().apply_all(records), RunState().apply_all(records)
        assert isinstance(view, ViewState)
        for name in ("status", "epoch", "stage", "iteration", "epochs", "dice", "reason", "seconds_left"):
            assert getattr(view, name) == pytest.approx(getattr(full, name)), name
        assert len(view.series) == len(full.finished_epochs)


def test_a_resumed_run_forgets_what_is_trained_again() -> None:
    records = numbered(records_until("training"))
    state = ViewState().apply_all([*records, {**records[0], "epoch": 10, "resumed": True}])
    assert isinstance(state, ViewState)
    assert list(state.series.epochs) == list(range(10))
    assert all(e < 10 for e in state.finished_epochs)
    assert list(state.slices) == [0, 5]


def test_torn_last_line_is_read_when_it_is_whole(results: Path) -> None:
    run = make_run(results, "training")
    content = run.events.read_bytes()
    run.events.write_bytes(content[:-20])
    watched = catch_up(WatchedRun(run))
    assert watched.state.iteration == 0
    with run.events.open("ab") as file:
        file.write(content[-20:])
    assert catch_up(watched).state.iteration == 100


def test_garbage_lines_are_skipped(results: Path) -> None:
    run = make_run(results, "training")
    lines = run.events.read_bytes().splitlines(keepends=True)
    garbage = [b"\xff\xfe\x00 no json\n", b"{}\n", b"[1, 2]\n", b'{"type": "epoch_finished", "seq": 1}\n', b"\n"]
    garbage += [b'{"type": "run_started", "seq": 3, "stages": [{}], "epoch": "x"}\n' * 0, b'{"type": 7, "seq": 2}\n']
    run.events.write_bytes(b"".join([*lines[:8], *garbage, *lines[8:]]))
    state = catch_up(WatchedRun(run)).state
    assert (len(state.series), state.iteration, state.damaged) == (16, 100, 1)


def test_truncated_log_starts_anew(results: Path) -> None:
    run = make_run(results, "training")
    watched = catch_up(WatchedRun(run))
    write_events(run, records_until("training", epochs=3))
    assert len(catch_up(watched).state.series) == 3


def test_replaced_log_starts_anew(results: Path) -> None:
    run = make_run(results, "training", epochs=3)
    watched = catch_up(WatchedRun(run))
    run.events.rename(run.events.with_name("old"))
    write_events(run, records_until("finished"))
    state = catch_up(watched).state
    assert (state.status, len(state.series)) == ("finished", 30)


def test_a_folder_that_vanishes_keeps_what_was_read(results: Path) -> None:
    run = make_run(results, "training")
    watched = catch_up(WatchedRun(run))
    for path in (run.events, run.manifest, run.log, run.lock):
        path.unlink()
    catch_up(watched)
    assert (watched.name, len(watched.state.series)) == ("demo-efficiency-fold0", 16)
    assert watched.problem is not None


def test_a_file_server_that_does_not_answer_keeps_what_was_read(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(results, "finished")
    watched = catch_up(WatchedRun(run))

    def stale(*_: object, **__: object) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    # Older versions of Python re-raise some errors in `Path.exists`.
    monkeypatch.setattr(Path, "exists", stale)
    monkeypatch.setattr(Path, "stat", stale)
    assert catch_up(watched).status == "finished"


def test_an_empty_folder_is_no_data(tmp_path: Path) -> None:
    assert catch_up(WatchedRun(RunFolder(tmp_path))).status == "no data"


def test_a_clock_that_is_wrong_changes_nothing(results: Path) -> None:
    run = make_run(results, "training")
    records = [{"v": 1, "seq": i, "time": -1e12 + i, **r} for i, r in enumerate(records_until("training"))]
    run.events.write_text("".join(json.dumps(r) + "\n" for r in records))
    watched = catch_up(WatchedRun(run))
    assert watched.status == "training"
    assert watched.state.seconds_left is not None and watched.state.seconds_left > 0


floats = st.floats(allow_nan=False) | st.none() | st.integers(-5, 5)
epoch_records = st.fixed_dictionaries(
    {"type": st.just("epoch_finished"), "epoch": st.integers(-1, 6) | st.none(), "stage": st.integers(0, 2)},
    optional={"seconds": floats, "train_loss": floats, "pseudo_dice": st.lists(floats, max_size=2) | st.none()},
)


@settings(deadline=None)
@given(st.lists(epoch_records, max_size=12), st.integers(0, 12))
def test_epochs_together_are_as_one_by_one(records: list[dict[str, Any]], first: int) -> None:
    together, alone = Series(), Series()
    refused = together.extend(records[:first]) + together.extend(records[first:])
    assert refused == sum(not alone.append(record) for record in records)
    assert repr((together.epochs, together.columns, together.classes)) == repr(
        (alone.epochs, alone.columns, alone.classes)
    )


@pytest.mark.parametrize("status", ["training", "finished", "stopped"])
def test_a_log_at_once_is_as_record_by_record(status: str) -> None:
    records = numbered(records_until(status))
    together, alone = ViewState().apply_all([*records, *records]), ViewState()
    for record in [*records, *records]:
        alone.apply(record)
    names = ("status", "epoch", "stage", "iteration", "seconds_left", "damaged", "mean_dice")
    assert [getattr(together, n) for n in names] == [getattr(alone, n) for n in names]
    # As text, since a number that was not measured is NaN, which equals nothing.
    assert repr(together.series.columns) == repr(alone.series.columns)


def test_the_age_of_another_machines_lock_is_asked_rarely(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(results, "training")
    run.lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 0.0}))
    asked, now = [], [0.0]
    monkeypatch.setattr("ppgs.tui.source.is_held", lambda path: asked.append(path) or Owner(1, "elsewhere", 0.0))
    watched = WatchedRun(run, clock=lambda: now[0])
    for _ in range(10):
        catch_up(watched)
        now[0] += 4.0
    assert watched.status == "training"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("labels", "order", "names"),
    [
        ({"background": 0, "lesion": 2, "organ": 1, "ignore": 3}, None, ["organ", "lesion"]),
        ({"background": 0, "core": [2, 3], "whole": [1, 2, 3], "tip": 3}, [2, 1, 3], ["core", "whole", "tip"]),
    ],
)
def test_classes_are_in_the_order_of_pseudo_dice(
    results: Path, labels: dict[str, Any], order: list[int] | None, names: list[str]
) -> None:
    """nnU-Net's label manager decides the order."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(labels, order)
    run = make_run(results, "training")
    (run.model / "dataset.json").write_text(json.dumps({"labels": labels}))
    watched = catch_up(WatchedRun(run))
    theirs = (
        manager.foreground_regions if manager.has_regions else [(int(label),) for label in manager.foreground_labels]
    )
    assert [values for _, values in watched.classes] == [one if isinstance(one, tuple) else (one,) for one in theirs]
    assert watched.class_names == names


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
kinds = ["preparing", "run_started", "stage_started", "iterations", "epoch_finished", "checkpoint_saved"]
kinds += [
    "slice_written",
    "validation_started",
    "validation_progress",
    "validation_finished",
    "warning",
    "run_failed",
    "run_stopped",
]
fields = ["epoch", "stage", "stages", "epochs", "seconds", "pseudo_dice", "dice", "done", "total", "iterations", "time"]
fields += ["file", "slice_dice", "case"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(kinds), st.dictionaries(st.sampled_from(fields), json_values)), max_size=8))
@pytest.mark.slow
def test_no_record_breaks_the_state(given_records: list[tuple[str, dict[str, Any]]]) -> None:
    state = ViewState()
    for kind, content in given_records:
        state.apply({**content, "type": kind, "seq": 0})
    sane = numbered(records_until("training"))
    state.apply_all(sane)
    assert state.series.epochs[-1] == 15
    assert state.epochs == 30
    assert state.left is not None and 0 < state.left.low <= state.left.high


def test_a_long_log_is_not_stalled_while_it_is_read(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(results, "training")
    monkeypatch.setattr("ppgs.tui.source.READ_BYTES", run.events.stat().st_size // 2 + 1)
    watched = WatchedRun(run)
    assert watched.take(watched.read())
    late = NOW + 1e6
    assert (watched.status, watched.stalled_since(late), watched.left) == ("training", None, None)
    catch_up(watched)
    assert watched.stalled_since(late) is not None
    assert watched.left is not None
    # The next records come as one piece.
    with run.events.open("a") as file:
        file.write(json.dumps({**numbered(records_until("training"))[-1], "iteration": 101}) + "\n")
    assert watched.take(watched.read())
    assert watched.left is not None


def test_damaged_lines_are_counted_and_do_not_pause_reading(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(results, "training")
    run.events.write_bytes(b"no json\n" * 100 + run.events.read_bytes() + b'{"type": "epoch_finished", "seq": 1}\n')
    monkeypatch.setattr("ppgs.tui.source.READ_BYTES", 500)
    watched = catch_up(WatchedRun(run))
    assert (watched.state.iteration, watched.damaged) == (100, 101)


def test_classes_are_read_when_they_are_there(results: Path) -> None:
    """nnU-Net writes dataset.json after the manifest, which does not change during a training."""
    run = make_run(results, "training")
    content = (run.model / "dataset.json").read_text()
    (run.model / "dataset.json").unlink()
    watched = catch_up(WatchedRun(run))
    assert watched.class_names == []
    (run.model / "dataset.json").write_text(content)
    assert catch_up(watched).class_names == ["organ", "lesion"]


def queued_run(results: Path) -> RunFolder:
    run = make_run(results, "stopped")
    run.manifest.write_text(run.manifest.read_text().replace('"stopped"', '"queued"'))
    write_events(run, [*records_until("stopped"), {"type": "run_queued", "where": "Slurm"}])
    return run


def test_a_run_whose_job_is_gone_is_dead_and_can_be_resumed(
    results: Path, open_monitor: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_monitor(queued_run(results))
    monkeypatch.setattr("ppgs.tui.source.waits", lambda *_: False)

    async def look(pilot: Pilot[Any]) -> None:
        assert app.run_shown.status == "presumed dead"
        assert "job is gone from the queue" in str(app.screen.query_one(Notice).render())
        assert app.check_action("resume", ())

    drive(app, look)


def test_slurm_is_asked_rarely_and_for_every_new_job(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now, asked, waiting = queued_run(results), [0.0], [], True

    def waits(*_: object) -> bool:
        asked.append(now[0])
        return waiting

    monkeypatch.setattr("ppgs.tui.source.waits", waits)
    watched = WatchedRun(run, clock=lambda: now[0])
    for _ in range(10):
        assert catch_up(watched).status == "queued"
        now[0] += 4.0
    assert asked == [0.0, 32.0]
    waiting = False
    now[0] += 30.0
    assert catch_up(watched).status == "presumed dead"
    waiting = True
    write_job(run, "17")
    assert catch_up(watched).status == "queued"


def test_the_share_of_the_training_grows_within_an_epoch() -> None:
    """By time, of which an epoch of a later stage takes more; before the first epoch by iterations."""
    records = numbered(records_until("training", epochs=14))
    state = ViewState()
    state.apply_all(records[:1])
    for iteration in (0, 125, 250):
        state.apply({**records[-1], "epoch": 0, "stage": 0, "iteration": iteration})
        assert state.fraction == pytest.approx(iteration / 250 / 30)
    state = ViewState()
    state.apply_all(records)
    shares = []
    for epoch in (14, 15):
        for iteration in (0, 125, 250):
            state.apply({**records[-1], "epoch": epoch, "iteration": iteration})
            shares.append(state.fraction)
        epochs = numbered(records_until("training", epochs=epoch + 1))
        state.apply([one for one in epochs if one["type"] == "epoch_finished"][-1])
    seconds = [4 + 0.0015 * z * y * x for z, y, x in PATCHES for _ in range(6)]
    assert shares == sorted(shares)
    # What is left takes a predicted time.
    assert shares[0] == pytest.approx(sum(seconds[:14]) / sum(seconds), rel=0.2)
    # Half of an epoch's training, which is 80 % of its time.
    whole = sum(seconds[:14]) / shares[0]
    assert shares[1] - shares[0] == pytest.approx(0.4 * seconds[14] / whole, rel=0.3)
    assert shares[4] - shares[3] == pytest.approx(shares[1] - shares[0], rel=0.1)


def test_log_tail(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    tail = LogTail(path)
    assert tail.read() == ([], False)
    path.write_bytes(b"one\nbar 10%\rbar 20%\r\n\x1b[31mred\x1b[0m \xff\nto")
    assert tail.read() == (["one", "bar 20%", "[31mred[0m \ufffd"], False)
    with path.open("ab") as file:
        file.write(b"rn\n")
    assert tail.read() == (["torn"], False)
    path.write_bytes(b"new\n")
    assert tail.read() == (["new"], True)


def test_log_tail_reads_the_end_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"x" * 99 + b"\n" + b"y" * 99 + b"\n" + b"z" * 99 + b"\n" * (LOG_BYTES // 2) + b"end\n")
    lines, _ = LogTail(path).read()
    assert lines[-1] == "end"


@given(st.lists(st.floats(-10, 10), max_size=300), st.integers(4, 50))
def test_thinning_keeps_ends_and_extremes(values: list[float], most: int) -> None:
    from array import array

    x, y = thin(array("q", range(len(values))), array("d", values), most)
    assert len(x) <= max(most + 2, 4) or len(values) <= most
    if values:
        assert (x[0], x[-1]) == (1, len(values))
        assert (y.min(), y.max()) == (min(values), max(values))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(5, 200))
def test_shares_fill_the_width(parts: list[float], width: int) -> None:
    cells = shares([p / math.fsum(parts) for p in parts], width)
    assert sum(cells) == width
    assert min(cells) >= 0


@pytest.mark.parametrize(("later", "said"), [(0.0, False), (7200.0, True)])
def test_a_run_without_progress_is_shown_as_stalled_with_since_when(
    results: Path, open_monitor: Open, later: float, said: bool
) -> None:
    run = make_run(results, "training")
    app = open_monitor(run)
    app._clock = lambda: NOW + later

    async def look(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        assert isinstance(pilot.app, MonitorApp)
        notice = str(pilot.app.screen.query_one(Notice).render())
        assert ("No progress since 07:50" in notice) == said
        assert ("ppgs stop demo-efficiency-fold0" in notice) == said
        assert pilot.app.run_shown.stalled_since(NOW + later) == (pytest.approx(NOW - 600, abs=60) if said else None)

    drive(app, look)


def test_a_stalled_run_of_another_machine_is_told_by_what_was_seen_here(results: Path) -> None:
    run = make_run(results, "training")
    run.lock.write_text(json.dumps({**vars(Owner.this_process()), "host": "elsewhere"}))
    clock = [0.0]
    watched = WatchedRun(run, clock=lambda: clock[0])
    watched.take(watched.read())
    assert watched.stalled_since(NOW + 1e6) is None
    clock[0] = 1000.0
    run.lock.touch()
    watched.take(watched.read())
    assert watched.stalled_since(NOW + 1e6) == NOW + 1e6 - 1000
