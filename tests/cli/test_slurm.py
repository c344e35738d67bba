"""Trainings as Slurm jobs: options, scripts, and a real Slurm that preempts one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ppgs.commands import slurm as jobs
from ppgs.commands import slurm_job
from ppgs.commands.resume import check_resumable
from ppgs.commands.slurm import parse_minutes, parse_options, waves
from ppgs.commands.slurm_job import TrainingJob
from ppgs.commands.train.sweep import Planned, plan_sweep
from ppgs.errors import BadInput, NoSuchRun, RunLocked
from ppgs.runs import queue
from ppgs.runs.events import EventLog
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.runs.queue import jobs_known, mark, waits, write_job
from ppgs.runs.registry import newest_unfinished
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
from ppgs.tui import palette
from ppgs.tui.source import WatchedRun
from tests.conftest import SHORT, Ppgs, run_ppgs

SLURM_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("4h", 240), ("90m", 90), ("1d12h", 2160), ("30", 30), ("04:00:00", 240), ("2-00:30:00", 2910), ("1h30m", 90)],
)
def test_times(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "h", "4x", "0", "04:00", "-1h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(BadInput, match="no time"):
        parse_minutes(text)


class TestOptions:
    def test_lists_of_sbatch_keep_their_commas(self) -> None:
        given = parse_options(
            ["partition=a100,v100,exclusive,dependency=afterok:1,afterany:2"], device="cpu", workers=0
        )
        assert (given["partition"], given["exclusive"]) == ("a100,v100", True)
        assert given["additional_parameters"] == {"dependency": "afterok:1,afterany:2"}
        given = parse_options(["partition=gpu,no_requeue,reboot"], device="auto", workers=0)
        assert (given["partition"], given["additional_parameters"]) == ("gpu", {"no-requeue": True, "reboot": True})
        given = parse_options(["gres=gpu:1,requeue"], device="auto", workers=0)
        assert (given["gres"], given["additional_parameters"]) == ("gpu:1", {"requeue": True})
        given = parse_options(["exclude=node01,node02,mail-type=END,FAIL,nice=1"], device="cpu", workers=0)
        assert given["exclude"] == "node01,node02"
        assert given["mail_type"] == "END,FAIL"
        assert given["additional_parameters"] == {"nice": "1"}

    def test_ours_slurms_and_the_defaults(self) -> None:
        given = parse_options(["partition=gpu, time=4h", "nice=100,requeue,parallel=3"], device="auto", workers=5)
        assert given == {
            "partition": "gpu",
            "time": 240,
            "array_parallelism": 3,
            "cpus_per_task": 6,
            "gpus_per_node": 1,
            "signal_delay_s": 120,
            "additional_parameters": {"nice": "100", "requeue": True},
        }

    def test_no_gpu_where_none_is_used_or_another_is_asked_for(self) -> None:
        assert "gpus_per_node" not in parse_options([], device="cpu", workers=None)
        assert "gpus_per_node" not in parse_options(["gpus=0"], device="auto", workers=None)
        assert "gpus_per_node" not in parse_options(["gres=gpu:a100:1"], device="cuda", workers=None)

    def test_a_short_job_is_warned_in_time(self) -> None:
        assert parse_options(["time=4m"], device="cpu", workers=0)["signal_delay_s"] == 60
        with pytest.raises(BadInput, match="before the job begins"):
            parse_options(["time=2m,signal=120"], device="cpu", workers=0)

    @pytest.mark.parametrize("text", ["time=soon", "cpus=many", "partition=", "Bad Key=1", "signal=x"])
    def test_nonsense_is_told(self, text: str) -> None:
        with pytest.raises(BadInput):
            parse_options([text], device="cpu", workers=0)


def planned(roots: Roots, **changes: Any) -> list[Planned]:
    return plan_sweep(["demo"], TrainingRequest(task="", device="cpu", **changes), "0-2", roots)


class TestScript:
    def test_dry_run_prints_an_array_and_submits_nothing(self, tmp_path: Path, ppgs: Ppgs) -> None:
        done = ppgs(
            *("train", "demo", "--fold", "0-4", "--device", "cpu", "--root", tmp_path),
            *("--slurm", "partition=low,time=30m,parallel=2", "--slurm-dry-run"),
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "#!/bin/bash"
        assert {"#SBATCH --array=0-4%2", "#SBATCH --partition=low", "#SBATCH --time=30"} <= set(lines)
        assert "#SBATCH --signal=USR2@120" in lines
        assert any(sys.executable in line and "srun" in line for line in lines)
        assert any('trap "" TERM USR1 USR2' in line and "srun" in line for line in lines), "as it is submitted"
        assert not list(tmp_path.iterdir())

    def test_a_job_has_cpus_for_the_workers_that_nnunets_variable_gives(self, tmp_path: Path, ppgs: Ppgs) -> None:
        asked = ("train", "demo", "--device", "cpu", "--root", tmp_path, "--slurm", "time=30m", "--slurm-dry-run")
        for more, cpus in ((), 12), (("--workers", "2"), 3):
            done = ppgs(*asked, *more, environ={"nnUNet_n_proc_DA": "11"})
            assert f"#SBATCH --cpus-per-task={cpus}" in done.stdout.splitlines(), done.stderr
        wrong = ppgs(*asked, environ={"nnUNet_n_proc_DA": "many"})
        assert wrong.returncode == 2 and "nnUNet_n_proc_DA" in wrong.stderr

    @pytest.mark.parametrize("problem", [KeyboardInterrupt(), RuntimeError("x")], ids=["ctrl-c", "error"])
    def test_a_submission_that_is_broken_off_leaves_runs_that_can_be_continued(
        self, problem: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> list[str]:
            raise problem

        monkeypatch.setattr(jobs, "executor", lambda _: None)
        monkeypatch.setattr(jobs, "submit_array", broken)
        roots = Roots.under(tmp_path)
        (one, *_) = planned(roots)
        with pytest.raises(type(problem)):
            jobs.submit([one], parse_options([], device="cpu", workers=0), roots)
        assert read_manifest(one.run).status == "stopped"
        check_resumable(one.run)

        # A job that has begun all the same has the run's lock, and the error stays what it was.
        def begun(*_: object) -> list[str]:
            Lock(one.run.lock).__enter__()
            raise problem

        monkeypatch.setattr(jobs, "submit_array", begun)
        with pytest.raises(type(problem)):
            jobs.submit([one], parse_options([], device="cpu", workers=0), roots)

    def test_without_slurm_it_says_so_and_leaves_nothing(self, tmp_path: Path, ppgs: Ppgs) -> None:
        done = ppgs(
            *("train", "demo", "--root", tmp_path, "--device", "cpu", "--slurm", "partition=low"),
            environ={"PATH": str(tmp_path)},
        )
        assert done.returncode == 2
        assert "there is no Slurm here" in done.stderr
        assert not list(tmp_path.glob("**/run.json"))

    def test_second_stages_come_after_first_ones(self, demo_root: Path, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        shutil.copytree(demo_root / "nnUNet_preprocessed", roots.preprocessed)
        plans_file = roots.preprocessed / "Dataset999_Demo" / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        plans["configurations"]["second"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
        plans_file.write_text(json.dumps(plans))
        first, second = waves(planned(roots, configuration="second,3d_fullres"), roots)
        assert [p.manifest.configuration for p in (first[0], second[0])] == ["3d_fullres", "second"]
        assert len(first) == len(second) == 3


class TestJob:
    @pytest.fixture
    def one(self, tmp_path: Path) -> Planned:
        first = planned(Roots.under(tmp_path))[0]
        first.run.own.mkdir(parents=True)
        write_manifest(first.run, first.manifest)
        return first

    def test_it_comes_back_as_long_as_it_gets_on(self, one: Planned, tmp_path: Path) -> None:
        pytest.importorskip("submitit")
        job = TrainingJob(one.run.path, Roots.under(tmp_path), warning=600)
        for attempt in range(slurm_job.MAX_IDLE - 1):
            job = job.checkpoint().function
            assert (job.idle, job.warning) == (attempt + 1, 600)
        assert read_manifest(one.run).status == "queued"
        with EventLog(one.run.events) as log:
            log.append("epoch_finished", epoch=0)
        job = job.checkpoint().function
        assert job.idle == 0
        job._progress = slurm_job._progress(one.run)
        for _ in range(slurm_job.MAX_IDLE - 1):
            job = job.checkpoint().function
            job._progress = slurm_job._progress(one.run)
        assert job.checkpoint() is None

    def test_a_preparation_or_an_epoch_of_several_jobs_gets_on(self, one: Planned, tmp_path: Path) -> None:
        pytest.importorskip("submitit")
        steps: list[dict[str, Any]] = [
            # What was prepared before may count, or may not.
            *({"type": "preparing", "done": done, "total": of} for done, of in ((100, 400), (80, 300), (60, 220)))
        ]
        steps += [{"type": "preparing", "step": "more", "done": n, "total": 400} for n in (100, 200, 300)]
        steps += [{"type": "checkpoint_saved", "epoch": 0, "iteration": n} for n in (20, 40, 60)]
        job = TrainingJob(one.run.path, Roots.under(tmp_path))
        for step in steps:
            with EventLog(one.run.events) as log:
                log.append(step["type"], **{key: value for key, value in step.items() if key != "type"})
            job = job.checkpoint().function
            assert job.idle == 0, step
            job._progress = slurm_job._progress(one.run)
        assert job.checkpoint().function.idle == 1

    def test_an_end_that_is_told_stays(self, one: Planned, tmp_path: Path) -> None:
        """Slurm may warn while the process that has just finished ends."""
        pytest.importorskip("submitit")
        job = TrainingJob(one.run.path, Roots.under(tmp_path))
        write_manifest(one.run, one.manifest.model_copy(update={"status": "finished"}))
        assert job.checkpoint().function() == 0
        assert read_manifest(one.run).status == "finished"
        write_manifest(one.run, one.manifest.model_copy(update={"status": "failed"}))
        assert job.checkpoint() is None
        assert read_manifest(one.run).status == "failed"

    def test_only_its_own_lock_from_another_node_is_dropped(
        self, one: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = TrainingJob(one.run.path, Roots.under(tmp_path))
        elsewhere = json.dumps({"pid": 1, "host": "node7", "started": 0.0})
        for number, attempt, kept in (("12", "12 node7", False), ("12", "11 node7", True), ("12", "12 node8", True)):
            monkeypatch.setenv("SLURM_JOB_ID", number)
            one.run.lock.write_text(elsewhere)
            (one.run.own / "slurm_attempt").write_text(attempt)
            job._drop_own_stale_lock(one.run)
            assert one.run.lock.exists() == kept

    def test_a_job_tells_its_id_itself(self, one: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The command that submitted it may have been broken off before it could."""

        def child(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(slurm_job, "TrainingChild", child)
        monkeypatch.setenv("SLURM_JOB_ID", "13")
        for array, job in (({}, "13"), ({"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}, "12_0")):
            for name, value in array.items():
                monkeypatch.setenv(name, value)
            with pytest.raises(KeyboardInterrupt):
                TrainingJob(one.run.path, Roots.under(tmp_path))()
            assert queue.job_of(one.run) == job

    def test_a_finished_run_is_left_alone(self, one: Planned, tmp_path: Path) -> None:
        write_manifest(one.run, one.manifest.model_copy(update={"status": "finished"}))
        assert TrainingJob(one.run.path, Roots.under(tmp_path))() == 0
        assert not one.run.lock.exists()


class TestQueue:
    @pytest.fixture
    def one(self, tmp_path: Path) -> Planned:
        """A run that waits in Slurm."""
        one = planned(Roots.under(tmp_path))[0]
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest)
        mark(one.run, "queued", "run_queued", where="Slurm")
        return one

    def test_the_monitor_shows_that_it_waits(self, one: Planned) -> None:
        source = WatchedRun(one.run)
        source.take(source.read())
        assert palette.mark(source.status) == "◷ queued"
        assert source.state.step == "waits in Slurm"

    def test_a_run_that_was_never_submitted_does_not_wait_for_ever(self, one: Planned) -> None:
        manifest = read_manifest(one.run)
        assert waits(one.run, manifest)
        manifest.updated -= 3600
        assert not waits(one.run, manifest)

    @pytest.mark.parametrize("listed", [frozenset({"1"}), None])
    def test_slurm_is_asked_once_however_long_it_takes(
        self, listed: frozenset[str] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, asked = 0.0, 0

        def slow() -> frozenset[str] | None:
            nonlocal clock, asked
            clock, asked = clock + 10, asked + 1
            return listed

        monkeypatch.setattr(queue, "_answer", None)
        monkeypatch.setattr(queue, "_squeue", slow)
        monkeypatch.setattr(queue, "time", SimpleNamespace(monotonic=lambda: clock))
        assert [jobs_known(["1"]) for _ in range(40)] == [listed] * 40
        assert asked == 1
        clock += 100
        jobs_known(["1"])
        assert asked == 2

    def test_a_queued_run_waits_until_slurm_forgets_its_job(
        self, one: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_job(one.run, "12_3")
        folder = tmp_path / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setattr(queue, "_answer", None)
        assert jobs_known(["12_3"]) is None
        assert waits(one.run, read_manifest(one.run)), "who cannot ask believes it"
        monkeypatch.setattr(queue, "_answer", None)
        (folder / "squeue").write_text("#!/bin/sh\necho 12_2\necho 12_3\n")
        (folder / "squeue").chmod(0o755)
        assert waits(one.run, read_manifest(one.run))
        assert one.standing() == "held"
        with pytest.raises(NoSuchRun):
            newest_unfinished(one.run.results)
        with pytest.raises(RunLocked, match="job 12_3"):
            check_resumable(one.run)
        (folder / "squeue").write_text("#!/bin/sh\necho 12_2\n")
        monkeypatch.setattr(queue, "_answer", None)
        assert not waits(one.run, read_manifest(one.run))
        assert one.standing() == "continue"
        assert newest_unfinished(one.run.results) == one.run
        with Lock(one.run.lock):
            assert one.standing() == "held"


@pytest.fixture(scope="module")
def slurm(shared: Path) -> Iterator[dict[str, str]]:
    """The environment of a real Slurm on this machine, installed and started for this test."""
    tools = shared / "slurm"
    if not (tools / "start").is_file():
        pytest.skip("needs ../shared/slurm, which starts a Slurm on this machine")
    if any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "munged", "sbatch")):
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("there is no Slurm, and it cannot be installed without root and apt")
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *SLURM_PACKAGES]
        for command in (["apt-get", "update", "-qq"], install):
            made = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            )
            if made.returncode:
                pytest.skip(f"Slurm cannot be installed: {made.stderr[-200:]}")
    # Not below pytest's own folder, which others may not enter: munge refuses such a place for its socket.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        root = Path(folder)
        root.chmod(0o755)
        try:
            subprocess.run([tools / "start", root], check=True, stdout=subprocess.DEVNULL, timeout=120)
            yield {"SLURM_CONF": str(root / "etc" / "slurm.conf"), "PATH": f"{tools}:{os.environ['PATH']}"}
        finally:
            subprocess.run([tools / "stop", root], check=True, stdout=subprocess.DEVNULL, timeout=120)


def test_what_slurm_refuses_is_told_and_leaves_nothing(slurm: dict[str, str], tmp_path: Path) -> None:
    asked = ("train", "demo", "--root", tmp_path, "--device", "cpu", "--slurm", "partition=nowhere,time=30m")
    done = run_ppgs(*asked, environ=slurm)
    assert done.returncode == 2
    assert "Slurm refuses the job" in done.stderr
    assert "partition" in done.stderr
    assert not list(tmp_path.rglob("fold_0"))


def test_a_preempted_job_goes_back_into_the_queue_and_ends_with_the_same_weights(
    slurm: dict[str, str], trained_demo: Path, demo_environ: dict[str, str], tmp_path: Path
) -> None:
    environ = demo_environ | slurm
    told = run_ppgs(
        *("train", "demo", *SHORT, "--json", "--slurm", "partition=low,time=30m,signal=5,cpus=2"), environ=environ
    )
    assert told.returncode == 0, told.stderr
    (submitted,) = json.loads(told.stdout)
    run = Path(submitted["path"])

    def kinds() -> list[str]:
        log = run / "ppgs" / "events.jsonl"
        return [json.loads(line)["type"] for line in log.read_text().splitlines()] if log.exists() else []

    def wait_for(condition: Any, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, kinds()[-5:]
            time.sleep(0.3)

    wait_for(lambda: kinds().count("epoch_finished") >= 3)
    preempt(slurm, tmp_path)
    wait_for(lambda: "run_finished" in kinds())
    seen = kinds()
    assert seen.count("run_started") == 2 and seen.count("run_queued") == 2
    assert seen.index("run_stopped") < seen.index("run_finished")
    rows = json.loads(run_ppgs("runs", "--json", environ=environ).stdout)
    assert [(r["name"], r["status"]) for r in rows] == [("demo-efficiency-fold0", "finished")]
    ours, theirs = (
        torch.load(r / "checkpoint_final.pth", weights_only=True)["network_weights"] for r in (run, trained_demo)
    )
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_parts_of_a_prediction_are_jobs_and_the_same_command_continues(
    slurm: dict[str, str], trained_demo: Path, demo_root: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for path in sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())[:3]:
        shutil.copy(path, images / path.name)
    names = sorted(path.name.replace("_0000", "") for path in images.iterdir())
    environ = {**slurm, "PPGS_CACHE": str(tmp_path / "cache"), "nnUNet_results": str(tmp_path / "results")}
    environ |= {name: str(demo_root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    command = (
        *("predict", trained_demo, "-i", images, "-o", out, "--device", "cpu", "--no-mirroring", "--json"),
        *("--slurm", "partition=low,time=30m,signal=5,cpus=1", "--parts", "2", "--statistics"),
    )
    told = run_ppgs(*command, environ=environ)
    assert told.returncode == 0, told.stderr
    jobs = json.loads(told.stdout)
    assert [job["part"] for job in jobs] == ["1/2", "2/2"]
    again = json.loads(run_ppgs(*command, environ=environ).stdout)
    assert all(job["queued_before"] for job in again), "no part is submitted twice"
    wait_for_slurm(environ)
    assert sorted(path.name for path in out.glob("*.nii.gz")) == names
    # One that is lost is segmented by a new job of its part alone, even if it is preempted while it starts.
    (out / names[1]).unlink()
    told = run_ppgs(*command, environ=environ)
    (job,) = json.loads(told.stdout)
    assert (job["part"], job["queued_before"]) == ("2/2", False), told.stderr
    wait_for_slurm(environ, "PENDING")
    preempt(environ, tmp_path)
    wait_for_slurm(environ)
    shown = ["scontrol", "show", "job", str(job["job"])]
    ended = subprocess.run(shown, env={**os.environ, **environ}, capture_output=True, text=True, check=True).stdout
    assert "JobState=FAILED" not in ended
    done = json.loads(run_ppgs(*command, environ=environ).stdout)
    assert done["files"] == [] and Path(done["statistics"]).read_text().count("\n") == 1 + 2 * len(names)


def preempt(environ: dict[str, str], folder: Path) -> None:
    """Submit a job that needs all cores and may take them from jobs of the partition `low`."""
    job = ["sbatch", "--partition=high", "--cpus-per-task=4", f"--output={folder}/o", "--wrap", "sleep 1"]
    subprocess.run(job, env={**os.environ, **environ}, check=True, capture_output=True)


def wait_for_slurm(environ: dict[str, str], states: str = "PENDING,RUNNING,COMPLETING,SUSPENDED") -> None:
    """Wait until no job is in these states: none waits or works."""
    end = time.monotonic() + 240
    squeue = ["squeue", "--noheader", "--format=%i", f"--states={states}"]
    while subprocess.run(squeue, env={**os.environ, **environ}, capture_output=True, check=True).stdout.strip():
        assert time.monotonic() < end
        time.sleep(0.5)
