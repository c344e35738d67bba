"""Runs made by hand in every state, and a monitor over them without clocks, devices or hosts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot
from textual.worker import WorkerCancelled, WorkerFailed

from ppgs.errors import RunError
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Owner
from ppgs.runs.names import WORKING
from ppgs.tui.app import MonitorApp
from ppgs.tui.system import Gpu, Reading
from ppgs.tui.widgets.curves import CurvePlot

NOW = 1_800_000_000.0
PATCHES = [(8, 8, 8), (16, 16, 8), (16, 16, 16), (24, 24, 16), (32, 32, 32)]
EPOCHS_PER_STAGE = 6


class FakeMachine:
    def read(self, pid: int | None) -> Reading:
        gpu = Gpu("NVIDIA A100", 97.0, 30 * 2**30, 80 * 2**30, 61.0, 312.0)
        return Reading(41.0, 16, 20 * 2**30, 128 * 2**30, 180.0, 6 * 2**30, (gpu,))


class FakeControl:
    """Remembers what was asked; `working` are the runs with their own process."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, RunFolder]] = []
        self.working: set[RunFolder] = set()
        self.refuses = False

    def stop(self, run: RunFolder) -> None:
        if self.refuses:
            raise RunError("no process is training this run")
        self.asked.append(("stop", run))

    def resume(self, run: RunFolder) -> None:
        if self.refuses:
            raise RunError("the run is finished", "run [1]", "train another")
        self.asked.append(("resume", run))

    def works_on(self, run: RunFolder) -> bool:
        return run in self.working


def records_until(status: str, *, epochs: int | None = None, offset: float = 0.0) -> list[dict[str, Any]]:
    """The event log of a run that has come as far as this status."""
    if status == "preparing":
        return [
            {"type": "preparing", "step": "starting", "done": 0, "total": 0},
            {"type": "preparing", "step": "preprocessing", "done": 9, "total": 24},
        ]
    total = len(PATCHES) * EPOCHS_PER_STAGE
    done = epochs if epochs is not None else total if status in ("validating", "finished") else 16
    stages = [
        {
            "patch_size": p,
            "batch_size": 2,
            "epochs": EPOCHS_PER_STAGE,
            "voxels": p[0] * p[1] * p[2],
            "memory_bytes": 2**30 + 40_000 * p[0] * p[1] * p[2],
        }
        for p in PATCHES
    ]
    found: list[dict[str, Any]] = [
        {"type": "run_started", "epoch": 0, "iteration": 0, "epochs": total, "iterations_per_epoch": 250,
         "resumed": False, "device": "cuda", "stages": stages}
    ]  # fmt: skip
    average = 0.0
    for epoch in range(done):
        stage = epoch // EPOCHS_PER_STAGE
        dice = [0.9 - 0.7 * 0.9**epoch + offset, 0.8 - 0.7 * 0.93**epoch + offset]
        average = 0.9 * average + 0.1 * sum(dice) / 2 if epoch else sum(dice) / 2
        seconds = 4.0 + 0.0015 * stages[stage]["voxels"]  # type: ignore[operator]
        found.append(
            {"type": "epoch_finished", "epoch": epoch, "stage": stage, "train_loss": 0.5 - 1.3 * (1 - 0.92**epoch),
             "val_loss": 0.6 - 1.3 * (1 - 0.93**epoch) + 0.05 * (epoch % 3), "pseudo_dice": dice, "ema_dice": average,
             "learning_rate": 0.01 * (1 - epoch / total) ** 0.9, "seconds": seconds, "train_seconds": 0.8 * seconds,
             "validation_seconds": 0.15 * seconds, "checkpoint_seconds": 0.01 * seconds,
             "data_wait_seconds": 0.06 * seconds, "peak_memory_bytes": stages[stage]["memory_bytes"] - 2**28,  # type: ignore[operator]
             "energy_wh": 0.08 * seconds}
        )  # fmt: skip
        if epoch == 0 or (epoch + 1) % EPOCHS_PER_STAGE == 0:
            found.append(
                {"type": "slice_written", "epoch": epoch, "stage": stage, "file": f"epoch_{epoch:05d}.npz",
                 "case": "demo_004", "slice_dice": dice if epoch else [0.2, None]}
            )  # fmt: skip
    found.append({"type": "checkpoint_saved", "epoch": done, "iteration": 0, "seconds": 0.4})
    if done < total:
        found.append(
            {"type": "iterations", "epoch": done, "stage": done // EPOCHS_PER_STAGE, "phase": "train",
             "iteration": 100, "iterations": 250, "loss": -0.4}
        )  # fmt: skip
    if status in ("validating", "finished"):
        found += [
            {"type": "validation_started", "cases": 5},
            {"type": "validation_progress", "done": 3 if status == "validating" else 5, "total": 5},
        ]
    if status == "finished":
        found += [
            {"type": "validation_finished", "dice": {"organ": 0.957, "lesion": 0.881}, "mean": 0.919},
            {"type": "run_finished"},
        ]
    if status == "stopped":
        found.append({"type": "run_stopped", "reason": "stopped in epoch 16 after iteration 100 (SIGTERM)"})
    if status == "failed":
        problem = {"what": "the disk is full", "where": "", "remedy": "make room, then 'ppgs resume'"}
        found.append(
            {"type": "run_failed", "reason": "the disk is full", "error": {"what": "", "problems": [problem]}}
        )  # fmt: skip
    return found


def write_picture(path: Path, epoch: int) -> None:
    """An organ with a lesion on a slope, 24 x 30 pixels, and a prediction that comes closer with the epochs."""
    y, x = np.mgrid[:24, :30]

    def ellipse(middle: float, radius: float) -> Any:
        return ((y - 12) / radius) ** 2 + ((x - middle) / radius / 1.2) ** 2 < 1

    reference = ellipse(15, 9).astype(np.uint8) + ellipse(18, 3.5)
    far = 5 * 0.9**epoch
    prediction = ellipse(15 - far, 9 - far / 2).astype(np.uint8) + ellipse(18 - far, 3.5)
    image = (3 * x + 50 * reference + 20 * ((x + y) % 3)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path, image=image, reference=reference, prediction=prediction, spacing=np.array([1.0, 1.0]),
        epoch=epoch, stage=epoch // EPOCHS_PER_STAGE, case="demo_004", index=17,
    )  # fmt: skip


def write_events(run: RunFolder, records: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"v": 1, "seq": i, "time": NOW - 600 + i, **r}) for i, r in enumerate(records)]
    run.events.write_text("".join(line + "\n" for line in lines))


def make_run(results: Path, status: str, *, schedule: str = "efficiency", fold: int = 0, **more: Any) -> RunFolder:
    """A run's folder in this status; `presumed dead` is one that trains without the owner of its lock."""
    run = RunFolder.place(results, "Dataset999_Demo", schedule, "nnUNetPlans", "3d_fullres", fold)
    run.own.mkdir(parents=True)
    real = "training" if status == "presumed dead" else status
    manifest = {
        "name": f"demo-{schedule}-fold{fold}", "task": "demo", "dataset": "Dataset999_Demo", "plans": "nnUNetPlans",
        "configuration": "3d_fullres", "fold": fold, "trainer": f"nnUNetTrainerPPGS_{schedule}", "schedule": schedule,
        "schedule_hash": "595804e031325c89", "device": "cuda", "versions": {"ppgs": "1.2.3"}, "status": real,
        "created": NOW - 700, "updated": NOW - 10,
        "request": {"task": "demo", "kind": "demo", "schedule": "", "schedule_name": schedule, "epochs": 30},
    }  # fmt: skip
    run.manifest.write_text(json.dumps(manifest))
    (run.model / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1, "lesion": 2}}))
    records = records_until(real, **more)
    write_events(run, records)
    for record in records:
        if record["type"] == "slice_written":
            write_picture(run.slices / record["file"], record["epoch"])
    (run.path / "emissions.csv").write_text(
        "run_id,duration,energy_consumed,emissions,country_iso_code\n1,60,0.5,0.19,DEU\n"
    )
    run.log.write_text("".join(f"2027-01-15 08:00:{i:02d}: line {i} of the training's output\n" for i in range(30)))
    if status in WORKING:
        run.lock.write_text(json.dumps(vars(Owner.this_process())))
    return run


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """One time zone, relative paths, no colours taken away or added by the environment."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    time.tzset()
    monkeypatch.chdir(tmp_path)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def results() -> Path:
    return Path("nnUNet_results")


Open = Callable[..., MonitorApp]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def open_monitor(control: FakeControl) -> Open:
    def open_it(*runs: RunFolder, own: bool = False, refresh: float = 3600.0) -> MonitorApp:
        return MonitorApp(
            runs, control, own=own, refresh=refresh, sampler=FakeMachine(), clock=lambda: NOW, exports=Path()
        )

    return open_it


def drive(app: MonitorApp, steps: Callable[[Pilot[Any]], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> None:
    """Run the application without a terminal and do these steps when it has read everything."""

    async def go() -> None:
        async with app.run_test(size=size) as pilot:
            await settled(pilot)
            await steps(pilot)

    asyncio.run(asyncio.wait_for(go(), 300))


async def settled(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, MonitorApp)
    await asyncio.wait_for(app.caught_up.wait(), 120)
    for _ in range(3):
        await pilot.pause()
        for worker in [one for one in app.workers if one.group == "pictures"]:
            with suppress(WorkerFailed, WorkerCancelled):
                await worker.wait()
    await pilot.pause()


async def choose_in_palette(pilot: Pilot[Any], words: str) -> None:
    """Choose the first command of the palette that has these words."""
    app = pilot.app
    await pilot.press("ctrl+p")
    await pilot.pause()
    assert isinstance(app.screen, CommandPalette)
    await pilot.press(*("space" if sign == " " else sign for sign in words))
    for _ in range(100):
        await pilot.pause(0.05)
        if app.screen.query_one(CommandList).option_count:
            break
    await pilot.press("enter")
    for _ in range(100):
        await pilot.pause(0.05)
        if not isinstance(app.screen, CommandPalette):
            break


Limits = tuple[float, float, float, float]


def limits(plot: CurvePlot) -> Limits:
    """Return the range of a plot: x from and to, y from and to."""
    return plot._x_min, plot._x_max, plot._y_min, plot._y_max


def ways(before: Limits, after: Limits) -> set[str]:
    """Return how a plot's limits have changed."""
    left, right, bottom, top = before
    left_after, right_after, bottom_after, top_after = after
    found = {
        "narrow": right_after - left_after < right - left and top_after - bottom_after < top - bottom,
        "wide": right_after - left_after > right - left and top_after - bottom_after > top - bottom,
        "less": left_after < left and right_after < right,
        "more": left_after > left and right_after > right,
        "higher": bottom_after > bottom and top_after > top,
        "lower": bottom_after < bottom and top_after < top,
        "back": before == pytest.approx(after),
    }
    return {name for name, is_so in found.items() if is_so}
