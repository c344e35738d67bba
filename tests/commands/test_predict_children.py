"""Several processes segment one input: their parts, their GPUs, one that dies, and the jobs of Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ppgs.commands import predict_slurm
from ppgs.commands.predict import together
from ppgs.commands.predict_children import Child, as_record, gpus_for, of_record, segment_in_children, share_of
from ppgs.commands.predict_parts import Part
from ppgs.commands.predict_plan import PlannedPrediction, PredictRequest
from ppgs.commands.predict_slurm import JOBS, PlannedJobs, PredictionJob, parameters_of, plan_jobs
from ppgs.commands.slurm_job import MAX_IDLE
from ppgs.errors import BadInput, DatasetError, DeviceError, WorkerLost
from ppgs.nnunet.images.find import Image
from ppgs.tasks import Roots
from tests.helpers.commands import Ppgs

CASES = {Image(name, (Path(f"{name}.nii.gz"),)): Path("out") / f"{name}.nii.gz" for name in "abcde"}


def asked(**options: Any) -> PredictRequest:
    return PredictRequest("run", Path("in"), Path("out"), device="cpu", overwrite=False, **options)


# A child that answers what the test says, in the place of one that segments.
PRETEND = """
import json, os, signal, sys
asked = json.loads(sys.stdin.buffer.read())["asked"]
part = asked["part"]
def tell(**message): print(json.dumps(message), flush=True)
tell(say=f"gpu {os.environ.get('CUDA_VISIBLE_DEVICES')} of {asked['sharing']}")
tell(file=f"out/{part.replace('/', '-')}")
tell(done=1, total=2)
if part == os.environ.get("DIES"):
    print("CUDA error: out of luck", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
error = None
if part == os.environ.get("FAILS"):
    error = {"kind": "DatasetError", "what": "torn", "exit_code": 2, "problems": [{"what": "torn", "where": part}]}
tell(done=2, total=2)
speed = {"seconds": 2.0, "stage_seconds": {"network": 1.5, "export": 1.0}}
tell(speed=speed, error=error)
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pretend.py"
    script.write_text(PRETEND)
    own = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return own([sys.executable, "-S", str(script)], **options)

    monkeypatch.setattr(subprocess, "Popen", start)


def test_a_request_survives_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    request = asked(references=Path("labels"), part="2/4", statistics=True, gpus=2)
    again = of_record(json.loads(json.dumps(as_record(request))))
    assert (again.source, again.target, again.references) == (tmp_path / "in", tmp_path / "out", tmp_path / "labels")
    assert again.run == str(tmp_path / "run") and again.part == "2/4"
    share = share_of(request, Part(6, 8), 2)
    assert (share.part, share.sharing, share.gpus, share.statistics, share.references) == ("6/8", 2, None, False, None)


def test_gpus() -> None:
    assert gpus_for(2, "cpu", {}) == [None, None]
    assert gpus_for(2, "auto", {"CUDA_VISIBLE_DEVICES": "3,GPU-7,1"}) == ["3", "GPU-7"]
    with pytest.raises(DeviceError, match="2 processes need as many NVIDIA GPUs, here are 1") as caught:
        gpus_for(2, "cuda", {"CUDA_VISIBLE_DEVICES": "0"})
    assert caught.value.exit_code == 2 and caught.value.problems[0].where == "--gpus"
    with pytest.raises(BadInput):
        gpus_for(2, "mps", {})


def segment(request: PredictRequest, left: str = "abcde") -> Any:
    seen: list[tuple[int, int]] = []
    said: list[str] = []
    outputs = {image: path for image, path in CASES.items() if image.name in left}
    roots = Roots.under(Path("root"))
    shares = segment_in_children(request, CASES, outputs, roots, lambda *at: seen.append(at), said.append)
    return shares, seen, said


def test_each_process_has_a_part_and_a_gpu(pretend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    request = PredictRequest("run", Path("in"), Path("out"), part="1/2", gpus=3)
    shares, seen, said = segment(request)
    assert sorted(said) == [f"part {2 * k + 1}/6: gpu {4 + k} of 3" for k in range(3)]
    assert [done for done, _ in seen] == list(range(1, 7)) and seen[-1] == (6, 6)
    assert [str(file) for file in shares.files] == [f"out/{k}-6" for k in (1, 3, 5)] and not shares.errors
    assert shares.speed["images_per_minute"] == 90 and shares.speed["slowest_stage"] == "network"


def test_processes_without_work_are_not_started(pretend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _, seen, said = segment(asked(gpus=3), left="be")
    assert said == ["part 2/3: gpu None of 1"] and seen[-1] == (2, 2)


def test_one_that_dies_is_named_and_the_rest_finish(pretend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIES", "1/3")
    monkeypatch.setenv("FAILS", "2/3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shares, _, _ = segment(asked(gpus=3))
    # What it had finished counts; of its seconds nothing is known.
    assert [str(file) for file in shares.files] == ["out/1-3", "out/2-3", "out/3-3"]
    assert shares.speed["images_per_minute"] == 60
    lost, failed = shares.errors
    assert isinstance(lost, WorkerLost) and "part 1/3 was killed by signal 9 (CUDA error: out of luck)" in str(lost)
    assert isinstance(failed, DatasetError) and lost.exit_code == 75
    both = together([failed, lost])
    assert both is not None and both.exit_code == 2 and len(both.problems) == 2 and together([]) is None


def test_a_stop_ends_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = subprocess.Popen
    sleepers: list[Any] = []

    def start(command: list[str], **options: Any) -> Any:
        waits = 'import time; print(\'{"done": 0, "total": 1}\', flush=True); time.sleep(60)'
        sleepers.append(own([sys.executable, "-S", "-c", waits], **options))
        return sleepers[-1]

    monkeypatch.setattr(subprocess, "Popen", start)

    def interrupted(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_in_children(asked(gpus=2), CASES, CASES, Roots.under(tmp_path), interrupted, print)
    assert len(sleepers) == 2 and all(process.poll() == -signal.SIGTERM for process in sleepers)


class TestJobs:
    @pytest.fixture
    def planned(self, tmp_path: Path) -> PlannedPrediction:
        left = {image: path for image, path in CASES.items() if image.name != "b"}
        return PlannedPrediction(left, tmp_path, [], CASES)

    def test_parts_that_are_done_or_queued_are_left_out(
        self, planned: PlannedPrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert plan_jobs(asked(), planned, None) == PlannedJobs([Part(k, 5) for k in (1, 3, 4, 5)], {})
        assert plan_jobs(asked(), planned, 2) == PlannedJobs([Part(1, 2), Part(2, 2)], {})
        monkeypatch.setattr(predict_slurm, "jobs_known", lambda jobs: frozenset(jobs) & {"7_0"})
        (tmp_path / JOBS).write_text(json.dumps({"1/2": "7_0", "2/2": "7_1"}))
        assert plan_jobs(asked(), planned, 2) == PlannedJobs([Part(2, 2)], {Part(1, 2): "7_0"})
        with pytest.raises(BadInput, match="other parts") as caught:
            plan_jobs(asked(), planned, 3)
        assert "scancel 7_0" in caught.value.problems[0].remedy
        (tmp_path / JOBS).write_text("damaged")
        assert len(plan_jobs(asked(), planned, 3).submit) == 3

    def test_each_job_has_one_gpu(self) -> None:
        assert "gpus_per_node" not in parameters_of(["time=30m"], asked())
        for slurm, request in (([], asked(gpus=2)), (["gpus=2"], PredictRequest("r", Path("a"), Path("b")))):
            with pytest.raises(BadInput):
                parameters_of(slurm, request)

    def test_it_comes_back_as_long_as_it_gets_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("submitit")
        job = PredictionJob(as_record(asked(part="1/2")), Roots.under(tmp_path))
        left = 3
        monkeypatch.setattr(PredictionJob, "_to_do", lambda self: left)
        for idle in range(1, MAX_IDLE):
            job._left = 3
            job = job.checkpoint().function
            assert job.idle == idle
        job._left, left = 3, 2
        job = job.checkpoint().function
        assert job.idle == 0
        job.idle, job._left = MAX_IDLE - 1, 2
        assert job.checkpoint() is None

    def test_what_failed_reaches_slurm(self, pretend: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PredictionJob, "_to_do", lambda self: 1)
        before = signal.getsignal(signal.SIGTERM)
        try:
            for variable, kind in (("FAILS", DatasetError), ("DIES", WorkerLost)):
                with monkeypatch.context() as patch, pytest.raises(kind):
                    patch.setenv(variable, "1/2")
                    PredictionJob(as_record(asked(part="1/2")), Roots.under(tmp_path))()
            assert PredictionJob(as_record(asked(part="1/2")), Roots.under(tmp_path))() == 0
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_dry_run_prints_an_array(self, trained_demo: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs) -> None:
        images = demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs"
        common = ("predict", trained_demo, "-i", images, "-o", tmp_path / "out", "--device", "cpu")
        done = ppgs(*common, "--slurm", "partition=low,time=30m", "--parts", "3", "--slurm-dry-run")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert {"#SBATCH --array=0-2%3", "#SBATCH --partition=low", "#SBATCH --time=30"} <= set(lines)
        assert not (tmp_path / "out").exists()


def test_a_real_process_of_two_is_killed_and_the_same_command_continues(
    trained_demo: Path, demo_root: Path, tmp_path: Path, ppgs: Ppgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs"
    names = sorted(path.name.replace("_0000", "") for path in images.iterdir())
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    killed: list[int] = []
    own = Child.__init__

    def start(self: Child, *arguments: Any, **options: Any) -> None:
        own(self, *arguments, **options)
        if self.part.number == 1:
            killed.append(self.process.pid)
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(Child, "__init__", start)
    cases = {Image(name.removesuffix(".nii.gz"), (images / name,)): tmp_path / "out" / name for name in names}
    request = PredictRequest(str(trained_demo), images, tmp_path / "out", device="cpu", mirroring=False, gpus=2)
    roots = Roots.under(demo_root)
    shares = segment_in_children(request, cases, cases, roots, lambda *_: None, lambda _: None)
    assert killed and [type(error) for error in shares.errors] == [WorkerLost]
    assert [file.name for file in shares.files] == names[1::2]
    monkeypatch.undo()
    common = ("predict", trained_demo, "-i", images, "-o", tmp_path / "out", "--no-mirroring", "--json")
    environ = {"PPGS_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": "0"}
    done = ppgs(*common, "--device", "cpu", "--gpus", "2", environ=environ)
    assert done.returncode == 0, done.stderr
    assert [Path(file).name for file in json.loads(done.stdout)["files"]] == names[0::2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    done = ppgs(*common, "--gpus", "2", "--device", "cuda", "--no-continue", environ=environ)
    assert done.returncode == 2 and "2 processes need as many NVIDIA GPUs, here are 1" in done.stderr
