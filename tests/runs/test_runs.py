import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppgs.errors import DamagedRun, NoSuchRun, RunLocked
from ppgs.runs.atomic import leftovers, staged_folder, write_atomically, write_text
from ppgs.runs.events import EventLog, Tail, read_events, read_whole
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import STALE_SECONDS, Lock, Owner, is_held, owner_of
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.runs.registry import command, find_run, find_runs, is_interrupted, newest_unfinished
from ppgs.runs.state import RunState
from ppgs.tasks import Roots
from tests.helpers.made_runs import made


def make_run(results: Path, name: str = "a-fold0", status: str = "stopped", label: str = "x") -> RunFolder:
    return made(RunFolder.place(results, "Dataset001_A", label, "nnUNetPlans", "3d_fullres", 0), name, status)


class TestAtomicFiles:
    def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(self, tmp_path: Path) -> None:
        target = tmp_path / "a"
        write_text(target, "old")

        def fail(file: object) -> None:
            file.write(b"new, torn")  # type: ignore[attr-defined]
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            write_atomically(target, fail)
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]

    def test_a_folder_appears_whole_or_not_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), staged_folder(tmp_path / "d") as staging:
            (staging / "x").write_text("1")
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []
        with staged_folder(tmp_path / "d") as staging:
            (staging / "x").write_text("1")
            assert list(leftovers(tmp_path)) == [staging]
        assert (tmp_path / "d" / "x").read_text() == "1"

    @pytest.mark.parametrize("mark", [".{}.part-12-0123abcd", "{}.part-12-0123abcd"])
    def test_what_a_kill_leaves_is_no_dataset_and_is_removed_with_the_next_attempt(
        self, tmp_path: Path, mark: str
    ) -> None:
        roots = Roots.under(tmp_path)
        for name in ("Dataset001_A", "Dataset001_A.v2"):
            (roots.raw / mark.format(name) / "imagesTr").mkdir(parents=True)
        assert roots.datasets() == []
        with staged_folder(roots.raw / "Dataset001_A") as staging:
            # The other dataset may be in the making.
            assert {p.name for p in roots.raw.iterdir()} == {staging.name, mark.format("Dataset001_A.v2")}
            assert staging.name.startswith(".") and roots.datasets() == []
        assert roots.datasets() == ["Dataset001_A"]


class TestLock:
    def test_it_is_exclusive_and_says_who_has_it(self, tmp_path: Path) -> None:
        with Lock(tmp_path / "lock"):
            with pytest.raises(RunLocked, match=f"process {os.getpid()}") as refused, Lock(tmp_path / "lock"):
                pass
            assert refused.value.exit_code == 4
        assert list(tmp_path.iterdir()) == []

    def test_a_dead_owner_is_no_owner(self, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path; from ppgs.runs.lock import Lock\n"
            "Lock(Path(sys.argv[1])).__enter__(); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", script, tmp_path / "lock"], check=True)
        assert owner_of(tmp_path / "lock") is not None
        assert is_held(tmp_path / "lock") is None
        with Lock(tmp_path / "lock"):
            assert is_held(tmp_path / "lock") is not None

    def test_another_machine_of_the_same_name_keeps_its_lock(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        other = vars(Owner.this_process(lock)) | {
            "file": None,
            "pid": 2**22 + 1,
            "machine": "another-boot pid:[4026531836]",
        }
        lock.write_text(json.dumps(other))
        held = is_held(lock)
        assert held is not None and not held.is_local
        # Also where it is mounted at another place.
        lock.write_text(json.dumps(other | {"path": "/elsewhere/lock"}))
        assert is_held(lock) is not None
        # What was not renewed since this machine was started is of the time before.
        old = psutil.boot_time() - 60
        os.utime(lock, (old, old))
        assert is_held(lock) is None

    def test_a_later_process_of_the_same_number_is_not_the_owner(self, tmp_path: Path) -> None:
        import socket

        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": 1.0}
        (tmp_path / "lock").write_text(json.dumps(owner))
        assert is_held(tmp_path / "lock") is None

    def test_another_machines_lock_goes_stale_only_when_it_is_not_renewed(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 1.0}))
        assert is_held(lock) is not None
        old = time.time() - STALE_SECONDS - 60
        os.utime(lock, (old, old))
        assert is_held(lock) is None

    def test_a_clock_that_jumped_frees_no_lock_of_this_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Lock(tmp_path / "lock"):
            create_time = psutil.Process.create_time
            monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
            assert is_held(tmp_path / "lock") is not None

    @pytest.mark.parametrize("jump", [7200, -7200])
    @pytest.mark.parametrize("renewed", [True, False])
    def test_a_clock_that_jumped_frees_no_lock_that_another_machine_renews(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float, renewed: bool
    ) -> None:
        monkeypatch.setattr("ppgs.runs.lock.RENEW_SECONDS", 1.0)
        lock, ended = tmp_path / "lock", threading.Event()
        lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 1.0}))
        os.utime(lock, (time.time() + jump, time.time() + jump))

        def renew() -> None:
            for n in range(100):
                if ended.wait(0.4):
                    return
                os.utime(lock, (time.time() + jump + n, time.time() + jump + n))

        thread = threading.Thread(target=renew)
        if renewed:
            thread.start()
        try:
            if renewed:
                with pytest.raises(RunLocked, match="on elsewhere"), Lock(lock):
                    pass
            else:
                with Lock(lock):
                    assert owner_of(lock) == Owner.this_process(lock)
        finally:
            ended.set()
            if renewed:
                thread.join()

    def test_a_lock_that_came_with_a_copy_is_none(self, tmp_path: Path) -> None:
        first = tmp_path / "first"
        with Lock(first / "lock"):
            shutil.copytree(first, tmp_path / "copy")
            assert is_held(first / "lock") is not None
            assert is_held(tmp_path / "copy" / "lock") is None
            with Lock(tmp_path / "copy" / "lock"):
                pass
            (tmp_path / "link").symlink_to(first)
            assert is_held(tmp_path / "link" / "lock") is not None
            # Moved while its owner works: still held.
            first.rename(tmp_path / "moved")
            assert is_held(tmp_path / "moved" / "lock") is not None
            (tmp_path / "moved" / "lock").unlink()

    def test_a_copy_of_a_lock_in_a_closed_home_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = Path.is_dir

        def closed(path: Path) -> bool:
            if path == tmp_path / "home":
                raise PermissionError(13, "Permission denied", str(path))
            return own(path)

        with Lock(tmp_path / "home" / "lock"):
            shutil.copytree(tmp_path / "home", tmp_path / "copy")
            monkeypatch.setattr(Path, "is_dir", closed)
            assert is_held(tmp_path / "copy" / "lock") is None

    @pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
    def test_a_folder_that_vanishes_while_it_is_compared_shows_no_copy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def vanished(path: Path, _: object) -> bool:
            raise OSError(number, os.strerror(number), str(path))

        with Lock(tmp_path / "lock"):
            monkeypatch.setattr(Path, "samefile", vanished)
            assert is_held(tmp_path / "lock") is not None

    def test_another_start_of_the_machine_has_no_processes_left(self, tmp_path: Path) -> None:
        lock, mine = tmp_path / "lock", Owner.this_process()
        if not mine.machine:
            pytest.skip("this system does not tell its starts apart")
        boot, namespace = mine.machine.split(" ")
        lock.write_text(json.dumps(vars(mine) | {"machine": f"{boot}0 {namespace}"}))
        old = psutil.boot_time() - 60
        os.utime(lock, (old, old))
        assert is_held(lock) is None
        # Another container of that name: its processes are not visible here.
        lock.write_text(json.dumps(vars(mine) | {"machine": f"{boot} pid:[1]", "pid": 2**22 + 1}))
        assert is_held(lock) is not None

    @pytest.mark.slow
    @pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
    def test_a_torn_lock_is_stale(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "lock").write_text(content)
        with Lock(tmp_path / "lock"):
            pass

    @pytest.mark.parametrize("links", [True, False])
    def test_only_one_of_many_takes_a_stale_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
    ) -> None:
        monkeypatch.setattr("ppgs.runs.lock.RENEW_SECONDS", 0.1)
        if not links:
            monkeypatch.setattr(os, "link", _no_links)
        (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "host": "x", "started": 1.0}))
        old = time.time() - STALE_SECONDS - 60
        os.utime(tmp_path / "lock", (old, old))
        fork = multiprocessing.get_context("fork")
        with fork.Pool(6, _remember_barrier, (fork.Barrier(6),)) as pool:
            assert sorted(pool.map(_try_lock, [tmp_path / "lock"] * 6, 1)) == [False] * 5 + [True]


def _no_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "as FAT and some network folders say")


_barrier: Any = None


def _remember_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _try_lock(path: Path) -> bool:
    """Try at the same time as all others; who has the lock keeps it until all others have tried."""
    _barrier.wait(60)
    try:
        with Lock(path):
            _barrier.wait(60)
            return True
    except RunLocked:
        _barrier.wait(60)
        return False


class TestEvents:
    def test_every_record_has_what_the_surface_promises(self, tmp_path: Path) -> None:
        with EventLog(tmp_path / "e") as log:
            log.append("epoch_finished", val_loss=float("nan"))
            log.append("warning", message="b", durable=True)
        records = read_events(tmp_path / "e")
        assert [r["seq"] for r in records] == [0, 1]
        assert [r["type"] for r in records] == ["epoch_finished", "warning"]
        assert all(r["v"] == 1 and r["time"] > 0 for r in records)
        assert records[0]["val_loss"] is None

    def test_a_log_is_continued_after_any_truncation(self, tmp_path: Path) -> None:
        path = tmp_path / "e"
        with EventLog(path) as log:
            for i in range(4):
                log.append("warning", message=f"m{i}")
        whole = path.read_bytes()
        for length in range(len(whole) + 1):
            path.write_bytes(whole[:length])
            survivors = [r["message"] for r in read_events(path)]
            assert survivors == [f"m{i}" for i in range(len(survivors))]
            with EventLog(path) as log:
                log.append("warning", message="after")
            records = read_events(path)
            assert [r["message"] for r in records] == [*survivors, "after"]
            assert [r["seq"] for r in records] == list(range(len(records)))

    @settings(max_examples=60)
    @given(st.lists(st.binary(max_size=60), max_size=8))
    def test_garbage_never_raises(self, lines: list[bytes]) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "e"
            path.write_bytes(b"\n".join([*lines, b'{"v":1,"seq":5,"time":1,"type":"warning","message":"x"}', b""]))
            records = read_events(path)
            assert records[-1]["message"] == "x"
            RunState().apply_all(records)

    @pytest.mark.slow
    def test_damaged_lines_are_counted_and_hide_nothing_after_them(self, tmp_path: Path) -> None:
        path = tmp_path / "e"
        path.write_bytes(b'{"seq":0,"type":1}\nx\n' * 300_000 + b'{"seq":7,"type":"warning"}\n')
        records, damaged = read_whole(path)
        assert [r["seq"] for r in records] == [7]
        assert damaged == 600_000

    def test_a_record_longer_than_a_tails_budget_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "e"
        path.write_bytes(
            b"".join(b'{"seq":%d,"type":"%s"}\n' % (n, t * 1000) for n, t in enumerate([b"a", b"b", b"c"]))
        )
        tail = Tail(path)
        assert [r["seq"] for _ in range(4) for r in tail.read(250)] == [0, 1, 2]
        assert tail.damaged == 0

    def test_a_tail_sees_only_whole_lines_and_notices_a_new_log(self, tmp_path: Path) -> None:
        path, tail = tmp_path / "e", Tail(tmp_path / "e")
        assert tail.read() == []
        path.write_bytes(b'{"seq":0,"type":"a"}\n{"seq":1,"ty')
        assert [r["seq"] for r in tail.read()] == [0]
        with path.open("ab") as file:
            file.write(b'pe":"b"}\n')
        assert [r["seq"] for r in tail.read()] == [1]
        path.write_bytes(b'{"seq":0,"type":"new"}\n')
        assert [r["type"] for r in tail.read()] == ["new"]
        assert tail.restarted


STAGES = [
    {"patch_size": [8, 8, 8], "batch_size": 2, "epochs": 2, "voxels": 512},
    {"patch_size": [16, 16, 16], "batch_size": 2, "epochs": 2, "voxels": 4096},
]
STARTED = {"type": "run_started", "time": 1, "epochs": 4, "iterations_per_epoch": 5, "stages": STAGES}


class TestState:
    def test_epochs_after_the_checkpoint_are_forgotten_on_a_restart(self) -> None:
        state = RunState().apply_all(
            [
                {
                    "type": "run_started",
                    "time": 1,
                    "epoch": 0,
                    "epochs": 4,
                    "iterations_per_epoch": 5,
                    "stages": STAGES,
                },
                {"type": "epoch_finished", "time": 2, "epoch": 0, "stage": 0, "seconds": 1.0},
                {"type": "epoch_finished", "time": 3, "epoch": 1, "stage": 0, "seconds": 1.0},
                {
                    "type": "run_started",
                    "time": 4,
                    "epoch": 1,
                    "epochs": 4,
                    "iterations_per_epoch": 5,
                    "stages": STAGES,
                },
            ]
        )
        assert sorted(state.finished_epochs) == [0]
        assert state.epoch == 1
        assert state.status == "training"

    def test_the_time_left_knows_that_later_stages_cost_more(self) -> None:
        records = [
            {**STARTED, "epoch": 0},
            {"type": "epoch_finished", "time": 2, "epoch": 0, "stage": 0, "seconds": 1.0},
        ]
        state = RunState()
        assert state.seconds_left is None
        left = state.apply_all(records).seconds_left
        assert left is not None
        assert left > 5

    def test_the_end_of_a_run(self) -> None:
        state = RunState().apply_all(
            [
                {"type": "validation_started", "time": 1, "cases": 5},
                {"type": "validation_finished", "time": 1, "dice": {"organ": 0.9}, "mean": 0.9},
                {"type": "run_finished", "time": 2},
            ]
        )
        assert (state.status, state.mean_dice, state.last_seen) == ("finished", 0.9, 2)


class TestRegistry:
    def test_runs_are_found_by_name_folder_and_relative_path(self, tmp_path: Path) -> None:
        run = make_run(tmp_path)
        assert find_run("a-fold0", tmp_path) == run
        assert find_run(str(run.path), tmp_path) == run
        assert find_run(str(run.own), tmp_path) == run
        assert find_run(str(run.model), tmp_path) == run
        assert find_run(str(run.path.relative_to(tmp_path)), tmp_path) == run

    def test_a_folder_of_a_runs_name_does_not_hide_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(tmp_path)
        (tmp_path / "work" / "a-fold0").mkdir(parents=True)
        (tmp_path / "work" / "segmentations").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        assert find_run("a-fold0", tmp_path) == run
        with pytest.raises(NoSuchRun, match="contains no run"):
            find_run("segmentations", tmp_path)

    def test_an_unknown_run_names_the_nearest(self, tmp_path: Path) -> None:
        make_run(tmp_path)
        with pytest.raises(NoSuchRun) as refused:
            find_run("a-fold1", tmp_path)
        assert "a-fold0" in refused.value.problems[0].remedy
        assert refused.value.exit_code == 4

    def test_the_newest_unfinished_run_is_the_one_worked_on_last(self, tmp_path: Path) -> None:
        make_run(tmp_path, "done", "finished", "done")
        first = make_run(tmp_path, "first", "stopped", "first")
        make_run(tmp_path, "second", "failed", "second")
        write_manifest(first, read_manifest(first))
        assert newest_unfinished(tmp_path) == first
        with Lock(first.lock):
            assert newest_unfinished(tmp_path) != first

    def test_a_run_without_its_process_is_interrupted(self, tmp_path: Path) -> None:
        run = make_run(tmp_path, status="training")
        assert is_interrupted(run, read_manifest(run))
        with Lock(run.lock):
            assert not is_interrupted(run, read_manifest(run))

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"v": 2}', '{"v": 1, "name": 3}', "\x00"])
    def test_damaged_manifests_are_told_and_skipped_in_lists(self, tmp_path: Path, content: str) -> None:
        run = make_run(tmp_path)
        run.manifest.write_text(content)
        with pytest.raises(DamagedRun):
            read_manifest(run)
        assert list(find_runs(tmp_path)) == []


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("data/nnUNet_results", "ppgs resume a-fold0"),
        ("my data/nnUNet_results", "ppgs resume a-fold0 --root '{here}/my data'"),
        ("elsewhere", "ppgs resume {here}/elsewhere/Dataset001_A/{model}/fold_0"),
    ],
)
def test_a_command_that_is_told_finds_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "data" / name))
    run = make_run(tmp_path / place)
    assert command("resume", run, "a-fold0") == told.format(here=tmp_path, model=run.model.name)
    # As a relative path too.
    monkeypatch.chdir(tmp_path)
    assert command("resume", RunFolder(run.path.relative_to(tmp_path)), "a-fold0") == command("resume", run, "a-fold0")


def test_a_command_that_is_told_looks_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "ppgs_data" / "nnUNet_results")
    assert command("monitor", run, "a-fold0") == "ppgs monitor a-fold0"


def test_a_training_that_ends_early_has_no_epochs_left() -> None:
    stages = [
        {"patch_size": [8, 8, 8], "batch_size": 2, "epochs": n, "voxels": 512, "epoch_seconds": [1.0, 1.0, 1.0]}
        for n in (20, 80)
    ]
    begun = {"type": "run_started", "time": 0.0, "epoch": 0, "iteration": 0, "epochs": 100, "stages": stages}
    records: list[dict[str, Any]] = [{**begun, "iterations_per_epoch": 10}]
    for epoch in range(30):
        stage = int(epoch >= 20)
        records.append({"type": "epoch_finished", "time": epoch + 1.0, "epoch": epoch, "stage": stage, "seconds": 1.0})
    records.append({"type": "early_stopping", "time": 31.0, "epoch": 29, "patience": 5, "best_epoch": 24})
    # Resumed in its validation, it begins behind its last epoch and does not tell the end again.
    for more in ([], [{**begun, "iterations_per_epoch": 10, "epoch": 30}]):
        state = RunState().apply_all([*records, *more])
        assert (state.epochs, state.epoch, [s.epochs for s in state.stages]) == (30, 30, [20, 10])
        left = state.training_left
        assert left is not None and left.middle == 0
    again = RunState().apply_all([*records, {**begun, "iterations_per_epoch": 10, "epoch": 25}])
    assert again.epochs == 100


def test_a_training_with_a_budget_that_ends_early_leaves_out_later_parts_of_its_last_stage() -> None:
    part = {"patch_size": [8, 8, 8], "batch_size": 2, "voxels": 512, "epoch_seconds": [1.0, 1.0, 1.0]}
    stages = [{**part, "epochs": n} for n in (20, 40, 40)]
    begun = {"type": "run_started", "time": 0.0, "epoch": 0, "iteration": 0, "epochs": 100, "stages": stages}
    end = {"type": "early_stopping", "time": 31.0, "epoch": 29, "patience": 5, "best_epoch": 24}
    state = RunState().apply_all([{**begun, "iterations_per_epoch": 10}, end])
    assert (state.epochs, [s.epochs for s in state.stages], len(state.expected)) == (30, [20, 10], 2)
