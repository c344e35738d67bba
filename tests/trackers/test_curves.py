"""Event logs as curves, and which trackers a training is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.errors import BadInput
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.trackers import chosen_trackers, feed
from ppgs.trackers.curves import Curves, Point, Result, Slice
from ppgs.trackers.feed import parameters_of


def test_points_have_all_axes_and_no_epoch_comes_twice(finished_run: RunFolder) -> None:
    curves = Curves()
    parts = [part for record in read_events(finished_run.events) for part in curves.apply(record)]
    points = [part for part in parts if isinstance(part, Point)]
    assert [point.epoch for point in points] == [1, 2, 3]
    assert points[-1].axes == {"epoch": 3.0, "iteration": 30.0, "hours": 1.5, "kWh": 1.5}
    assert points[-1].steps == {"by_epoch": 3, "by_iteration": 30, "by_second": 5400, "by_mWh": 1_500_000}
    first, last = points[0].scalars, points[-1].scalars
    assert (first["stage"], first["batch_size"], first["patch_size/axis_2"]) == (0, 4, 8)
    assert (last["stage"], last["batch_size"], last["patch_size/voxels"]) == (1, 2, 2048)
    assert "val_loss" not in first
    assert first["pseudo_dice/class_1"] == 0.25 and "pseudo_dice/class_2" not in first
    assert [part.iteration for part in parts if isinstance(part, Slice)] == [10, 20, 30]
    assert [part.dice for part in parts if isinstance(part, Result)] == [{"organ (left)+": 0.75, "mean": 0.75}]


def test_without_energy_there_is_no_axis_of_it() -> None:
    curves = Curves()
    for epoch, energy in enumerate((500.0, None, 500.0)):
        record = {"type": "epoch_finished", "epoch": epoch, "time": 1.0, "seconds": 60.0, "energy_wh": energy}
        (point,) = curves.apply(record)
    assert isinstance(point, Point)
    assert point.axes.keys() == {"epoch", "iteration", "hours"} and "by_mWh" not in point.steps


def test_stages_that_a_budget_plans_again_are_heeded() -> None:
    curves = Curves()
    stages = [{"patch_size": [8, 8], "batch_size": 4}]
    list(curves.apply({"type": "run_started", "iterations_per_epoch": 10, "stages": stages}))
    list(curves.apply({"type": "budget_planned", "stages": [{"patch_size": [16, 16], "batch_size": 2}]}))
    (point,) = curves.apply({"type": "epoch_finished", "epoch": 0, "stage": 0})
    assert isinstance(point, Point)
    assert (point.iteration, point.scalars["batch_size"]) == (10, 2)


def test_hyperparameters_are_the_options_and_what_became_of_them(begun_run: RunFolder) -> None:
    (started, *_) = read_events(begun_run.events)
    found = parameters_of(read_manifest(begun_run), started)
    assert found.items() >= {"schedule": "efficiency", "seed": 0, "epochs": 3, "iterations": 10, "stages": 2}.items()
    assert (found["first_patch_size"], found["last_patch_size"], found["last_batch_size"]) == ("8x8x8", "16x16x8", 2)


def test_names_and_nnunets_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppgs.trackers._is_installed", lambda _: True)
    with pytest.raises(BadInput, match="no tracker 'tensorbord'") as wrong:
        chosen_trackers("tensorbord", {})
    assert wrong.value.problems[0].remedy == "did you mean 'tensorboard'?"
    assert chosen_trackers("mlflow, tensorboard", {}) == ("mlflow", "tensorboard")
    for off in ({}, {"nnUNet_wandb_enabled": "0"}, {"nnUNet_wandb_enabled": "False"}):
        assert chosen_trackers(None, off) == ()
    assert chosen_trackers("wandb", {"nnUNet_wandb_enabled": "1"}) == ("wandb",)
    assert chosen_trackers("mlflow", {"nnUNet_wandb_enabled": "true"}) == ("mlflow", "wandb")
    with pytest.raises(BadInput, match="nnUNet_wandb_enabled is 'maybe'"):
        chosen_trackers(None, {"nnUNet_wandb_enabled": "maybe"})


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ppgs.trackers._is_installed", lambda _: False)
    with pytest.raises(BadInput) as missing:
        chosen_trackers("tensorboard", {"nnUNet_wandb_enabled": "1"})
    assert [(problem.where, problem.remedy) for problem in missing.value.problems] == [
        ("--log", "pip install tensorboard"),
        ("nnUNet_wandb_enabled", "pip install wandb"),
    ]


def test_a_repeated_validation_by_another_checkpoint_is_not_the_result() -> None:
    curves = Curves()
    found = [
        part
        for record in (
            {"type": "validation_finished", "time": 1.0, "dice": {}, "mean": 0.9},
            {"type": "validation_finished", "time": 2.0, "dice": {}, "mean": 0.1, "checkpoint": "best"},
        )
        for part in curves.apply(record)
    ]
    assert [part.dice for part in found if isinstance(part, Result)] == [{"mean": 0.9}]


def test_what_was_sent_before_one_that_fails_is_not_sent_again(
    finished_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Failing:
        identity = "x"
        fails = True

        def __init__(self, *_: object) -> None: ...

        def point(self, point: Point) -> None:
            if self.fails and len(seen) == 2:
                raise ConnectionError
            seen.append(point.epoch)

        def slice(self, *_: object) -> None: ...
        def result(self, *_: object) -> None: ...
        def flush(self) -> None: ...

    monkeypatch.setattr(feed, "sink_class", lambda _: Failing)
    with pytest.raises(ConnectionError):
        feed.Feed(finished_run, "wandb", tmp_path).send()
    Failing.fails = False
    feed.Feed(finished_run, "wandb", tmp_path).send()
    assert seen == sorted(set(seen)) and len(seen) == 3
