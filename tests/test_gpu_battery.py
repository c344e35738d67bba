"""The GPU battery runs dry, at tiny sizes on the CPU: its parts 0 to 4 and 6."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from tests.test_benchmarks import ROOT, benchmark

# Items that a machine without CUDA can only skip.
SKIPPED = {0: {"compile"}, 1: {"synchronisations of an iteration"}}


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from battery import record

    yield record


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("battery")


@pytest.mark.parametrize("part", (0, 1, 2, 3, 4, 6))
def test_a_part_runs_dry(part: int, root: Path, tmp_path: Path) -> None:
    done = benchmark("gpu_battery.py", part, "--out", tmp_path, "--root", root, "--dry", PPGS_CACHE=str(root / "cache"))
    found = json.loads((tmp_path / f"part{part}.json").read_text())
    errors = {name: item["error"] for name, item in found["items"].items() if "error" in item}
    assert (done.returncode, errors) == (0, {}), done.stderr[-3000:]
    assert set(found["skipped"]) == SKIPPED.get(part, set())
    assert found["items"] and found["dry"]
    assert found["machine"]["packages"]["torch"]
    if part == 3:
        # It was complete after the last epoch.
        so_far = json.loads((root / "so_far.json").read_text())
        assert so_far.items() <= found["items"]["Task04 efficiency"]["result"].items()


def options(tmp_path: Path, **changes: Any) -> argparse.Namespace:
    given = {"dry": False, "device": "cpu", "root": tmp_path, "out": tmp_path, "minutes": 1.0}
    return argparse.Namespace(**{**given, "only": None, "plans": None, **changes})


def test_items_that_no_longer_fit_are_listed_as_skipped(record: Any, tmp_path: Path) -> None:
    now = [0.0]
    part = record.Part(9, options(tmp_path), clock=lambda: now[0])

    def lasting(seconds: float) -> str:
        now[0] += seconds
        return "done"

    assert part.item("first", 30, lambda: lasting(40)) == "done"
    assert part.item("second", 30, lambda: lasting(1)) is None
    assert part.item("third", 10, lambda: lasting(1)) == "done"
    found = json.loads((tmp_path / "part9.json").read_text())
    assert list(found["items"]) == ["first", "third"]
    assert found["skipped"] == {"second": "needs about 30 s, 20 s are left"}


def test_an_item_that_fails_is_recorded_and_the_others_are_taken(record: Any, tmp_path: Path) -> None:
    part = record.Part(9, options(tmp_path))
    part.item("bad", 1, lambda: 1 / 0)
    # Whole after every item.
    assert "ZeroDivisionError" in json.loads((tmp_path / "part9.json").read_text())["items"]["bad"]["error"]
    part.item("good", 1, lambda: {"ms": 1.0})
    found = json.loads((tmp_path / "part9.json").read_text())
    assert found["items"]["good"]["result"] == {"ms": 1.0}
    assert part.failed == 1
    assert not list(tmp_path.glob("*.part"))


def test_the_checks_of_the_gpu_tests_are_the_batterys(record: Any) -> None:
    from battery.correctness import CHECKS

    from tests.gpu.test_correctness import CHECKS as asked

    assert tuple(CHECKS) == asked
    assert str(ROOT / "benchmarks") in sys.path


def test_a_training_that_takes_too_long_is_ended_and_its_epochs_are_kept(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from battery import against_stock
    from battery.data import TINY

    shutil.copytree(TINY, tmp_path / "plans" / "Dataset004_Tiny")
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import json, pathlib, subprocess, sys, time\n"
        "so_far = pathlib.Path(sys.argv[sys.argv.index('--so-far') + 1])\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "so_far.write_text(json.dumps({'seconds': [1.0, 2.0], 'stages': [0, 0], 'child': child.pid}))\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(against_stock, "_SPEED", slow)
    part = record.Part(3, options(tmp_path, plans=tmp_path / "plans", minutes=10.0))
    part.item("Task04 stock", 4, lambda: against_stock.contender(part, "004", "stock", 3, 1, 4))
    against_stock.summarise(part)
    item = json.loads((tmp_path / "part3.json").read_text())["items"]["Task04 stock"]
    assert item["result"]["seconds"] == [1.0, 2.0] and item["result"]["unfinished"]
    assert item["seconds"] < 300
    # What it started is ended with it.
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(item["result"]["child"]).status() == psutil.STATUS_ZOMBIE


def test_the_calibration_comes_first_and_the_cases_for_memory_are_small(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from battery import calibration
    from battery.data import TINY

    names: list[str] = []
    recorder: Any = SimpleNamespace(dry=False, item=lambda name, *_: names.append(name))
    calibration.take(recorder)
    assert names[:2] == ["calibration", "Task01 memory"] and len(names) == 13
    asked: list[str] = []
    part: Any = SimpleNamespace(
        options=SimpleNamespace(plans=TINY.parent), dry=True, device="cpu", root=tmp_path,
        output_of=lambda command, _: asked.extend(command) or "{}",
    )  # fmt: skip
    calibration.memory(part, "001")
    assert asked[asked.index("--cases") + 1] == "2" and asked[asked.index("--cap") + 1] == "1.5"
    assert asked[asked.index("--root") + 1] != str(tmp_path), "whole cases are needed there"


def test_cases_are_capped_at_their_patch(record: Any, tmp_path: Path) -> None:
    import blosc2
    from battery.data import TINY, write_task

    from ppgs.tasks import Roots

    roots = Roots.under(tmp_path)
    name = write_task(TINY, roots, 2, 1.5)
    cases = sorted((roots.preprocessed / name).glob("*/case_*.b2nd"))
    shapes = {blosc2.open(str(case)).shape[1:] for case in cases}
    # Of 24x20x20 voxels with a patch of 16x16x16.
    assert len(cases) == 4 and shapes == {(24, 20, 20)}
    shutil.rmtree(tmp_path)
    write_task(TINY, roots, 2, 0.7)
    assert {blosc2.open(str(case)).shape[1:] for case in cases} == {(12, 12, 12)}


@pytest.fixture(scope="module")
def tiny_setting(root: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        from battery.correctness import Setting

        yield Setting(root, "cpu", None, dry=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_there_are_batches_enough_to_run_out_of_memory(
    tiny_setting: Any, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    from battery.correctness import memory_schedule

    from ppgs.nnunet.data.keys import KeySampler

    monkeypatch.setattr(tiny_setting, "device", device)
    keys = KeySampler(memory_schedule(tiny_setting), 0)
    assert len(list(takewhile(lambda key: key is not None and key.phase == "train", keys))) >= 5


def test_half_a_batch_that_needs_as_much_memory_as_a_whole_one_is_skipped(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from battery.correctness import _limit_memory

    peaks = iter((130, 100))
    cuda = SimpleNamespace(
        empty_cache=lambda: None,
        reset_peak_memory_stats=lambda: None,
        max_memory_reserved=lambda: next(peaks),
        set_per_process_memory_fraction=lambda _: pytest.fail("is limited"),
        get_device_properties=lambda _: SimpleNamespace(total_memory=1000),
    )
    trainer: Any = SimpleNamespace(
        _steps=SimpleNamespace(backward=lambda *_: None),
        dataloader_train=iter(range(4)),
        optimizer=SimpleNamespace(zero_grad=lambda **_: None),
    )
    setting: Any = SimpleNamespace(torch=SimpleNamespace(cuda=cuda))
    with pytest.raises(record.Skip, match="100 and 130 bytes"):
        _limit_memory(setting, trainer)


@pytest.mark.parametrize(("late", "waits", "ok"), [(True, True, False), (True, False, True), (False, True, True)])
def test_an_iteration_that_need_not_wait_must_not(record: Any, late: bool, waits: bool, ok: bool) -> None:
    from battery.correctness import synchronisations

    def step(_: Any) -> None:
        if waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)

    class Trainer:
        current_epoch = 0
        dataloader_train = iter(range(3))
        _steps = SimpleNamespace(late=object() if late else None)
        train_step = staticmethod(step)

        def __getattr__(self, _: str) -> Any:
            return lambda *_: None

    cuda = SimpleNamespace(set_sync_debug_mode=lambda _: None)
    setting: Any = SimpleNamespace(device="cuda", torch=SimpleNamespace(cuda=cuda), trainer=lambda _: Trainer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = synchronisations(setting)
    assert (found["ok"], found["count"]) == (ok, int(waits))


def test_the_second_stream_is_busy_before_a_batch_is_finished_on_it(
    tiny_setting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from battery.correctness import second_stream

    from ppgs.nnunet.trainer import ahead

    order: list[str] = []

    class Second:
        _stream = "second"

        def __call__(self, batch: Any, finish: Any) -> Any:
            order.append("batch")
            return finish(batch, torch.device("cpu"))

    @contextmanager
    def stream(which: str) -> Iterator[None]:
        order.append(which)
        yield

    monkeypatch.setattr(ahead, "second_stream", lambda _: Second())
    monkeypatch.setattr(torch.cuda, "stream", stream)
    assert second_stream(tiny_setting)["ok"]
    assert order == ["second", "batch"] * 2


class Rounded(torch.autograd.Function):
    """Values, and their gradients, as a device has them that computes in this precision."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        ctx.precision = precision
        return value.to(precision).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient.to(ctx.precision).float(), None


@pytest.mark.parametrize("spoilt", [False, True])
def test_correct_rounding_to_half_precision_passes_the_check_of_one_step(
    record: Any, shared: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool
) -> None:
    """Task04, with every layer's input, output and weights rounded; with one layer's gradient lost it fails."""
    from battery import correctness
    from battery.training import make_step

    made: list[Any] = []

    def emulated(described: Any, device: str, *, bfloat16: bool) -> Any:
        step = make_step(described, device, bfloat16=False)
        made.append(step)
        if len(made) == 1:
            return step
        rounded = torch.bfloat16 if bfloat16 else torch.float16
        layers = [m for m in step.network.modules() if isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
        norms = [m for m in step.network.modules() if isinstance(m, torch.nn.InstanceNorm3d)]
        for layer in (*layers, *norms):
            layer.register_forward_pre_hook(lambda _, given: (Rounded.apply(given[0], rounded),))
            layer.register_forward_hook(lambda _, __, output: Rounded.apply(output, rounded))
        load = step.network.load_state_dict

        def rounding(state: Any) -> None:
            load(state)
            with torch.no_grad():
                for layer in layers:
                    layer.weight.copy_(layer.weight.to(rounded))

        step.network.load_state_dict = rounding
        if spoilt:
            layers[0].weight.register_hook(torch.zeros_like)
            layers[-1].weight.register_hook(torch.zeros_like)
        return step

    monkeypatch.setattr(correctness, "make_step", emulated)
    setting: Any = SimpleNamespace(device="cpu", folder=shared / "msd" / "Dataset004_Hippocampus", torch=torch)
    found = correctness.one_step(setting)
    assert found["ok"] is not spoilt, found


def test_the_gpus_energy_is_added_up_over_calls(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from battery import promise

    from ppgs.tasks import Roots

    roots = Roots.under(tmp_path)
    (roots.preprocessed / "T").mkdir(parents=True)
    (roots.preprocessed / "T" / "splits_final.json").touch()
    log = roots.results / "T" / "nnUNetTrainerPPGS_constant_promise-2__nnUNetPlans__3d_fullres/fold_0/ppgs/events.jsonl"

    def train(*_: Any, **__: Any) -> Any:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            print(json.dumps({"type": "epoch_finished", "seconds": 1.0, "ema_dice": 0.5}), file=file)
        return subprocess.CompletedProcess((), 0)

    counter = iter((1e6, 2e6, 7e6, 9.6e6))
    monkeypatch.setattr(promise, "joules", lambda _: next(counter))
    monkeypatch.setattr(subprocess, "run", train)
    part = record.Part(6, options(tmp_path))
    with pytest.raises(RuntimeError, match="1 of 2 epochs"):
        promise.trained(part, "T", "constant", 2)
    found = promise.trained(part, "T", "constant", 2)
    assert found["gpu_kwh"] == 1.0 and found["kwh"] is None
