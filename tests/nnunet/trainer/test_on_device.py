"""Trainings whose batches are augmented by the device that trains, as on CUDA but with tensors of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ppgs.nnunet.data import keys
from ppgs.nnunet.data.augmentation import BatchAugmentation
from ppgs.nnunet.data.dataset import KeyedBatches
from ppgs.nnunet.network import optimiser
from ppgs.nnunet.network.optimiser import LateUpdate
from ppgs.nnunet.trainer import ahead
from ppgs.nnunet.trainer.steps import Steps
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from tests.helpers.operators import Operators
from tests.helpers.trainers import begun, equal, weights

Build = Callable[..., Any]


class Streams:
    """Replaces `torch.cuda`; `calls` lists what was launched and on which of the two streams, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.read_by: dict[int, str] = {}
        self._now = _Stream("training", self.calls)
        augment, read = BatchAugmentation.on, Steps._read

        def augmented(*given: Any) -> Any:
            self.calls.append(f"augment on {self._now.name}")
            return augment(*given)

        def was_read(*given: Any) -> None:
            self.calls.append("read")
            read(*given)

        def recorded(tensor: torch.Tensor, stream: _Stream) -> None:
            self.read_by[tensor.untyped_storage().data_ptr()] = stream.name

        patch.setattr(BatchAugmentation, "on", augmented)
        patch.setattr(Steps, "_read", was_read)
        patch.setattr(torch.Tensor, "record_stream", recorded)

    def Stream(self, _: torch.device) -> _Stream:
        return _Stream("second", self.calls)

    def current_stream(self, _: torch.device) -> _Stream:
        return self._now

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        before, self._now = self._now, stream
        try:
            yield
        finally:
            self._now = before

    def watch(self, trainer: Any) -> None:
        """Record the passes and updates of a trainer."""
        trainer.network.register_forward_pre_hook(lambda *_: self.calls.append(f"forward on {self._now.name}"))
        first = next(trainer.network.parameters())
        first.register_post_accumulate_grad_hook(lambda _: self.calls.append("backward"))
        trainer.optimizer.register_step_post_hook(lambda *_: self.calls.append("update"))


class _Stream:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self._calls = name, calls

    def wait_stream(self, other: _Stream) -> None:
        self._calls.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def schedule(demo_facts: PlanFacts) -> Schedule:
    """Two epochs of three iterations with patches so small that an epoch's batches are one group."""
    base = resolve(Recipe(mode="constant", epochs=2, iterations_per_epoch=3), demo_facts)
    small = Stage(patch_size=(8, 8, 8), batch_size=4, epochs=1)
    return base.model_copy(update={"stages": (small, small.model_copy(update={"patch_size": (16, 16, 16)}))})


@pytest.fixture
def build_simulated(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Makes trainers that get unfinished batches and update without waiting."""

    def unfinished(*given: Any, finished: bool) -> KeyedBatches:
        return KeyedBatches(*given, finished=False)

    def make(*given: Any, **options: Any) -> Any:
        monkeypatch.setattr(optimiser, "late_update", LateUpdate)
        monkeypatch.setattr("ppgs.nnunet.trainer.trainer.KeyedBatches", unfinished)
        return build(*given, **options)

    return make


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Have trainers finish batches on a second stream, as on CUDA."""
    made = Streams(monkeypatch)
    monkeypatch.setattr(ahead, "second_stream", lambda device: ahead.SecondStream(device, made))
    return made


def test_from_its_arrival_to_the_update_nothing_waits_for_a_batch(build_simulated: Build, schedule: Schedule) -> None:
    trainer = build_simulated(schedule)
    batches = begun(trainer)
    # The first step sets up the optimiser.
    trainer.train_step(next(batches))
    arrived = [next(batches) for _ in range(2)]
    with Operators() as watch:
        for batch in arrived:
            trainer._steps.take(batch, 1)
    assert watch.calls > 100
    assert not watch.waits


def test_weights_do_not_depend_on_the_groups(
    build_simulated: Build, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = build_simulated(schedule, workers=2)
    grouped.run_training()
    monkeypatch.setattr(keys, "_GROUP_VOXELS", 1)
    alone = build_simulated(schedule)
    alone.run_training()
    assert equal(weights(grouped), weights(alone))
    losses = [trainer.logger.get_checkpoint()["train_losses"] for trainer in (grouped, alone)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]


def test_the_next_batch_is_finished_on_a_second_stream_while_the_one_before_is_trained_on(
    build_simulated: Build, schedule: Schedule, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_GROUP_VOXELS", 1)
    trainer = build_simulated(schedule)
    streams.watch(trainer)
    batches = begun(trainer)
    trained = [next(batches) for _ in range(3)]
    for batch in trained:
        trainer.train_step(batch)
    finish = ["augment on second", "training waits for second"]
    step = ["forward on training", "backward", "update"]
    # Between the launch of a step and the next batch, the host waits for the step before alone.
    assert streams.calls == [*finish, *step, *finish, *step, "read", *finish, *step, "read"]
    tensors = [tensor for batch in trained for tensor in (batch["data"], *batch["target"])]
    assert {streams.read_by[tensor.untyped_storage().data_ptr()] for tensor in tensors} == {"training"}


def test_a_group_is_finished_once_and_all_its_memory_is_known_to_be_read(
    build_simulated: Build, schedule: Schedule, streams: Streams
) -> None:
    trainer = build_simulated(schedule)
    batches = begun(trainer)
    trained = [next(batches) for _ in range(3)]
    for batch in trained:
        trainer.train_step(batch)
    assert streams.calls == ["augment on second", "training waits for second", "read", "read"]
    tensors = [tensor for batch in trained for tensor in (batch["data"], *batch["target"])]
    assert {streams.read_by[tensor.untyped_storage().data_ptr()] for tensor in tensors} == {"training"}


@pytest.mark.parametrize("batchwise", [True, False])
def test_a_second_stream_changes_no_bit(
    build: Build,
    build_simulated: Build,
    schedule: Schedule,
    request: pytest.FixtureRequest,
    batchwise: bool,
) -> None:
    make = build_simulated if batchwise else build
    plain = make(schedule, batchwise=batchwise)
    plain.run_training()
    streams: Streams = request.getfixturevalue("streams")
    other = make(schedule, batchwise=batchwise)
    other.run_training()
    assert equal(weights(plain), weights(other))
    logs = [trainer.logger.get_checkpoint() for trainer in (plain, other)]
    assert logs[0]["train_losses"] == logs[1]["train_losses"]
    assert logs[0]["val_losses"] == logs[1]["val_losses"]
    assert "training waits for second" in streams.calls


def test_memory_that_runs_out_on_the_second_stream_loses_no_batch(
    build_simulated: Build, schedule: Schedule, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "warning":
            said.append(fields["message"])

    trainer, other = build_simulated(schedule, emit=emit), build_simulated(schedule)
    for one in (trainer, other):
        one.configuration_manager.configuration["batch_dice"] = False
    other._steps._guard.parts = 2
    augment, calls = BatchAugmentation.on, 0

    def short(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return augment(*given)

    monkeypatch.setattr(BatchAugmentation, "on", short)
    trainer.train_step(next(begun(trainer)))
    other.train_step(next(begun(other)))
    assert len(said) == 1 and "are trained in 2 parts" in said[0]
    assert streams.current_stream(trainer.device).name == "training"
    assert equal(weights(trainer), weights(other))


def test_the_cpu_has_no_second_stream(build: Build, schedule: Schedule) -> None:
    assert build(schedule)._steps._second_stream is None
