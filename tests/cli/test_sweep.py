"""Several trainings asked for together: checked before any starts, resumable as a whole, shown as a matrix."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ppgs.cli.train import sweep as cli
from ppgs.commands.train.sweep import Planned, as_sweep, plan_sweep
from ppgs.errors import BadInput, DamagedRun, ExitCode, NonFiniteLoss, PpgsError, RunExists
from ppgs.runs.events import EventLog
from ppgs.runs.lock import Lock
from ppgs.runs.manifest import read_manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.runs.sweep import find_sweeps, write_sweep
from ppgs.tasks import Roots
from tests.helpers.commands import Ppgs, start, wait_for

ONE_EPOCH = ("--schedule", "constant,random", "--epochs", "1", "--iterations", "1", "--no-energy", "--no-tui")
CPU = ("--device", "cpu", "--workers", "0")


class TestPlans:
    asked = TrainingRequest(task="", schedule="efficiency,constant", epochs=20)

    def test_every_combination_is_a_cell(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        planned = plan_sweep(["demo"], self.asked.model_copy(update={"configuration": "2d,3d_fullres"}), "0-2", roots)
        assert len(planned) == len({p.run for p in planned}) == 12
        sweep = as_sweep(planned, roots, "ppgs train")
        assert sweep.columns == ["fold 0", "fold 1", "fold 2"]
        assert sweep.rows == [
            *("demo-efficiency-2d", "demo-constant-2d"),
            *("demo-efficiency", "demo-constant"),
        ]
        assert not list(tmp_path.iterdir())

    def test_all_problems_are_told_before_anything_starts(self, tmp_path: Path) -> None:
        with pytest.raises(PpgsError) as told:
            asked = self.asked.model_copy(update={"schedule": "constant,nonsense"})
            plan_sweep(["demo", "Dataset017_None"], asked, "0,7", Roots.under(tmp_path))
        text = " ".join(p.what for p in told.value.problems)
        assert "Dataset017_None" in text and "nonsense" in text and "fold 7" in text
        assert not list(tmp_path.iterdir())

    def test_the_same_cells_are_the_same_sweep(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        first = as_sweep(plan_sweep(["demo"], self.asked, "0,1", roots), roots, "a")
        again = as_sweep(plan_sweep(["demo"], self.asked, "1,0", roots), roots, "b")
        other = as_sweep(plan_sweep(["demo"], self.asked, "0-2", roots), roots, "c")
        assert first.name == again.name != other.name
        for sweep in (first, again, other):
            write_sweep(roots.results, sweep)
        assert [s.command for s in find_sweeps(roots.results)] == ["b", "c"]

    def test_another_training_of_the_same_name_is_not_taken_for_it(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        one = plan_sweep(["demo"], self.asked, "0", roots)[0]
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest)
        assert one.standing() == "continue"
        write_manifest(one.run, one.manifest.model_copy(update={"status": "finished"}))
        assert one.standing() == "finished"
        with pytest.raises(RunExists, match="other options"):
            plan_sweep(["demo"], self.asked.model_copy(update={"epochs": 30}), "0", roots)
        with pytest.raises(RunExists) as refused:
            plan_sweep(["demo"], self.asked.model_copy(update={"npz": True}), "0", roots)
        assert f"'ppgs validate {one.manifest.name} --root {tmp_path} --npz'" in refused.value.problems[0].remedy
        one.run.validation.mkdir()
        (one.run.validation / "a.npz").touch()
        assert plan_sweep(["demo"], self.asked.model_copy(update={"npz": True}), "0", roots)[0].standing() == "finished"
        kept = one.manifest.request.model_copy(update={"npz": True})
        write_manifest(one.run, one.manifest.model_copy(update={"status": "finished", "request": kept}))
        with pytest.raises(RunExists, match="npz True, now False"):
            plan_sweep(["demo"], self.asked, "0", roots)
        over = self.asked.model_copy(update={"epochs": 30, "overwrite": True})
        assert plan_sweep(["demo"], over, "0", roots)[0].standing() == "new"

    def test_the_same_command_continues_with_what_it_says_of_the_machine(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        one = plan_sweep(["demo"], self.asked, "0", roots)[0]
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest)
        asked = self.asked.model_copy(update={"workers": 0, "loader_timeout": 60.0, "skip_nonfinite": True})
        for again in (asked, self.asked):
            plan_sweep(["demo"], again, "0", roots)[0].claim(roots)
            request = read_manifest(one.run).request
            assert (request.workers, request.loader_timeout, request.skip_nonfinite) == (0, 60.0, True)

    @pytest.mark.parametrize(
        "options",
        [
            {"precision": "nnunet"},
            {"augmentation": "nnunet"},
            {"geometry": "voxel"},
            {"energy": False},
            {"log": "tensorboard"},
            {"patience": 5},
            {"deterministic": True},
            {"channels_last": True},
            {"gpu_memory": "8GiB"},
            {"until": "job"},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_no_option_is_left_out_silently(
        self, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ppgs.commands.train.plan.chosen_trackers", lambda *_: ())
        roots = Roots.under(tmp_path)
        asked = self.asked.model_copy(update={"epochs": None})
        one = plan_sweep(["demo"], asked, "0", roots)[0]
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest)
        with pytest.raises(RunExists, match=next(iter(options)).replace("_", " ")):
            plan_sweep(["demo"], asked.model_copy(update=options), "0", roots)

    def test_a_run_of_an_older_version_is_continued_in_its_way(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        one = plan_sweep(["demo"], self.asked, "0", roots)[0]
        one.run.own.mkdir(parents=True)
        older = one.manifest.request.model_copy(update={"precision": "nnunet", "augmentation": "nnunet"})
        write_manifest(one.run, one.manifest.model_copy(update={"request": older}))
        assert plan_sweep(["demo"], self.asked, "0", roots)[0].standing() == "continue"

    def test_the_time_to_end_at_is_that_of_the_newest_command_and_one_for_all(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        asked = self.asked.model_copy(update={"epochs": None, "schedule": "constant", "until": "2100-01-01T07:00"})
        one = plan_sweep(["demo"], asked, "0", roots)[0]
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest)
        # torchrun starts the processes of one command again: its seven o'clock is what it was.
        later = asked.model_copy(update={"until": "2101-01-01T07:00+00:00"})
        plan_sweep(["demo"], later, "0", roots)[0].claim(roots, again=True)
        assert read_manifest(one.run).request.until == one.manifest.request.until
        plan_sweep(["demo"], later, "0", roots)[0].claim(roots)
        assert read_manifest(one.run).request.until == "2101-01-01T07:00:00+00:00"
        # Not by each training when its turn comes: that would be the next day's.
        several = plan_sweep(["demo"], asked.model_copy(update={"until": "07:00"}), "1-3", roots)
        (until,) = {p.asked.until for p in several}
        assert until is not None and {p.manifest.request.until for p in several} == {until}
        assert datetime.fromisoformat(until).hour == 7
        with pytest.raises(BadInput, match="3 trainings, 2 at a time, cannot all end at"):
            cli.check_sweep(several, roots, jobs=2)
        cli.check_sweep(several, roots, jobs=3)
        cli.check_sweep(plan_sweep(["demo"], self.asked, "1-3", roots), roots, jobs=1)

    def test_what_lies_in_its_place_is_replaced_only_when_asked(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        one = plan_sweep(["demo"], self.asked, "0", roots)[0]
        over = replace(one, asked=one.asked.model_copy(update={"overwrite": True}))
        one.run.path.mkdir(parents=True)
        with pytest.raises(RunExists, match="a training of another tool"):
            one.standing()
        assert over.standing() == "new"
        one.run.own.mkdir()
        one.run.manifest.write_text("{")
        with pytest.raises(DamagedRun):
            one.standing()
        assert over.standing() == "new"
        with Lock(one.run.lock):
            assert over.standing() == "held"

    def test_a_second_stage_waits_for_its_first_and_all_for_the_preparation(
        self, demo_root: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(demo_root / "nnUNet_preprocessed", tmp_path / "nnUNet_preprocessed")
        roots = Roots.under(tmp_path)
        asked = self.asked.model_copy(update={"configuration": "3d_fullres,second", "schedule": "constant"})
        plans_file = roots.preprocessed / "Dataset999_Demo" / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        plans["configurations"]["second"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
        plans_file.write_text(json.dumps(plans))
        first, second = plan_sweep(["demo"], asked, "0", roots)
        assert second.waits_for([first], roots) and not second.waits_for([], roots)
        timed = [replace(p, asked=p.asked.model_copy(update={"until": "2100-01-01T07:00:00"})) for p in (first, second)]
        with pytest.raises(BadInput, match="cannot all end"):
            cli.check_sweep(timed, roots, jobs=2)
        assert not first.waits_for([second], roots)
        with pytest.raises(PpgsError, match="first stage is not finished"):
            second.claim(roots)
        plans_file.unlink()
        assert first.waits_for([second], roots)


def test_the_matrix_tells_where_every_cell_stands(tmp_path: Path, ppgs: Ppgs) -> None:
    roots = Roots.under(tmp_path)
    planned = plan_sweep(["demo"], TestPlans.asked, "0,1", roots)
    write_sweep(roots.results, as_sweep(planned, roots, "ppgs train demo --fold 0,1"))
    for one, status in zip(planned, ("finished", "failed"), strict=False):
        one.run.own.mkdir(parents=True)
        write_manifest(one.run, one.manifest.model_copy(update={"status": status}))
        with EventLog(one.run.events) as log:
            log.append("validation_finished", dice={"a": 0.5}, mean=0.87654)
            log.append(f"run_{status}")
    shown = ppgs("runs", "--root", tmp_path).stdout
    assert "0.8765" in shown and "failed" in shown
    assert "1 of 4 finished; go on with: ppgs train demo --fold 0,1" in shown
    (told,) = json.loads(ppgs("runs", "--sweeps", "--json", "--root", tmp_path).stdout)
    assert [c["status"] for c in told["cells"]] == ["finished", "failed", "not started", "not started"]


def test_a_stopped_sweep_goes_on_with_the_same_command(demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    command = ("train", "demo", *ONE_EPOCH, *CPU)
    process = start(demo_environ, *command)
    results = Path(demo_environ["nnUNet_results"])
    wait_for(results, "run_started")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (stopped,) = results.glob("*/*/fold_0")
    # Two at a time from here on: on the CPU as asked, on GPUs one each.
    done = ppgs(*command, "--jobs", "2", "--json", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert "2 to do" in done.stderr
    assert [c["status"] for c in json.loads(done.stdout)["cells"]] == ["finished", "finished"]
    kinds = [json.loads(line)["type"] for line in (stopped / "ppgs" / "events.jsonl").read_text().splitlines()]
    assert kinds.index("run_stopped") < kinds.index("run_finished"), "it was continued, not started again"
    again = ppgs(*command, environ=demo_environ)
    assert again.returncode == 0 and "0 to do" in again.stderr and "2 of 2 finished" in again.stdout
    shutil.rmtree(stopped)
    alone = ppgs(*command, "--json", environ=demo_environ)
    assert "1 to do" in alone.stderr
    assert [c["status"] for c in json.loads(alone.stdout)["cells"]] == ["finished", "finished"]


@pytest.mark.parametrize("together", [False, True])
def test_every_failure_of_a_sweep_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], together: bool
) -> None:
    planned = plan_sweep(["demo"], TrainingRequest(task="", epochs=20), "0,1", Roots.under(tmp_path))

    def fail(run: Any, *_: object, **__: object) -> None:
        raise BadInput(f"failed: {run.path.name}", "", "")

    monkeypatch.setattr(cli, "run_training", fail)
    monkeypatch.setattr(cli, "TrainingChild", fail)
    run = (
        partial(cli._side_by_side, slots=2, gpus=[]) if together else partial(cli._one_by_one, tui=False, as_json=False)
    )
    assert run(planned, Roots.under(tmp_path)) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert "failed: fold_0" in said and "failed: fold_1" in said


def test_what_stops_one_of_several_at_a_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = Roots.under(tmp_path)
    planned = plan_sweep(["demo"], TrainingRequest(task="", epochs=20), "0,1", roots)
    error = NonFiniteLoss("the loss became nan", "case_7", "--skip-nonfinite leaves such batches out").to_record()
    stopped = planned[0].manifest.model_copy(update={"status": "stopped", "error": error, "updated": 1.0})
    (tmp_path / "stopped.json").write_text(stopped.model_dump_json())
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\ntrap 'exit 75' TERM\n"
        # Before the other one has its trap, SIGTERM would kill it.
        f'case "$3" in *fold_0) while [ ! -e {tmp_path}/ready ]; do sleep 0.1; done\n'
        f'cp {tmp_path}/stopped.json "$3/ppgs/run.json"; exit 75;; esac\n'
        f"touch {tmp_path}/ready; while :; do sleep 0.1; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(Planned, "waits_for", lambda *_: False)
    assert cli._side_by_side(planned, roots, 2, []) == ExitCode.STOPPED
    said = capsys.readouterr().err
    assert said.count("the loss became nan") == 1 and "--skip-nonfinite" in said and "demo-efficiency-fold0:" in said
    assert "demo-efficiency-fold1:" not in said
