"""Updates that read nothing back from the device, as on CUDA but with tensors of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ppgs.errors import DoesNotFit, NonFiniteLoss, StoppedEarly
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.network import optimiser
from ppgs.nnunet.network.optimiser import LateUpdate
from ppgs.schedule import PlanFacts, Recipe
from tests.helpers.operators import Operators
from tests.helpers.trainers import begun, equal, one_stage, weights

SHORT = Recipe(mode="constant", epochs=2, iterations_per_epoch=3)
Build = Callable[..., Any]


@contextmanager
def late() -> Iterator[None]:
    """Trainers that are built within update as on CUDA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimiser, "late_update", LateUpdate)
        yield


@pytest.fixture
def build_late(build: Build) -> Build:
    def make(*given: Any, **options: Any) -> Any:
        with late():
            trainer = build(*given, **options)
        assert trainer._steps.late is not None
        return trainer

    return make


def spoiled(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "data": batch["data"] * float("nan")}


def test_the_cpu_waits_as_it_did(build: Build) -> None:
    assert build(SHORT)._steps.late is None


def test_weights_and_losses_are_those_of_updates_that_wait(build: Build, build_late: Build) -> None:
    first, second = build(SHORT), build_late(SHORT)
    first.run_training()
    second.run_training()
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(second)[name], value, rtol=1e-4, atol=1e-6)
    values = [trainer.logger.get_checkpoint()["train_losses"] for trainer in (first, second)]
    assert len(values[0]) == 2
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_one_update_is_equal_to_rounding(build: Build, build_late: Build) -> None:
    """With gradients that are clipped."""
    found = []
    for make in (build, build_late):
        trainer = make(SHORT)
        for parameter in trainer.network.parameters():
            parameter.register_hook(lambda gradient: gradient * 100)
        trainer.train_step(next(begun(trainer)))
        found.append(weights(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("iteration", [1, 4])
def test_a_stop_within_an_epoch_and_a_resume_change_no_bit(build_late: Build, iteration: int) -> None:
    whole = build_late(SHORT)
    whole.run_training()
    asked = 0

    def stop() -> str | None:
        nonlocal asked
        asked += 1
        return "SIGTERM" if asked > iteration else None

    first = build_late(SHORT, stop_requested=stop)
    with pytest.raises(StoppedEarly) as stopped:
        first.run_training()
    content = load_checkpoint(first.settings.run.checkpoint_latest)
    where = f"epoch {content['current_epoch'] + 1} after iteration {content['ppgs']['iteration']}"
    assert where in str(stopped.value)
    assert 3 * content["current_epoch"] + content["ppgs"]["iteration"] == min(iteration, 3)
    second = build_late(SHORT)
    second.restore(content, first.settings.run.checkpoint_latest)
    second.run_training()
    assert equal(weights(second), weights(whole))
    logs = [trainer.logger.get_checkpoint()["train_losses"] for trainer in (whole, second)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("where", ["loss", "gradients"])
@pytest.mark.parametrize("known", ["next step", "stop", "end of epoch"])
def test_what_is_not_finite_stops_before_it_although_it_is_known_later(
    build_late: Build, where: str, known: str
) -> None:
    stopping = False
    trainer = build_late(SHORT, stop_requested=lambda: "SIGTERM" if stopping else None)
    batches = begun(trainer)
    good, bad, after = next(batches), next(batches), next(batches)
    trainer.train_step(good)
    before = weights(trainer)
    if where == "loss":
        bad = spoiled(bad)
    else:
        hook = next(trainer.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    trainer.train_step(bad)
    if where == "gradients":
        hook.remove()
    with pytest.raises(NonFiniteLoss, match=f"{where}.* in epoch 1, iteration 2\n") as raised:
        if known == "end of epoch":
            trainer.on_train_epoch_end([])
        stopping = known == "stop"
        trainer.train_step(after)
    assert equal(weights(trainer), before)
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert equal(content["network_weights"], before)
    assert content["ppgs"]["iteration"] == len(content["ppgs"]["losses"]) == 1
    assert set(bad["keys"]) <= set(raised.value.problems[0].where.removeprefix("cases ").split(", "))


def test_a_batch_that_is_left_out_changes_nothing_even_as_the_first(build_late: Build) -> None:
    told: list[str] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "warning":
            told.append(fields["message"])

    trainer, other = build_late(SHORT, skip_nonfinite=True, emit=emit), build_late(SHORT)
    first, second = (next(begun(one)) for one in (trainer, other))
    before = weights(trainer)
    trainer.train_step(spoiled(first))
    assert equal(weights(trainer), before)
    trainer.train_step(first)
    other.train_step(second)
    # Its momentum, too, is that of a training without the batch before.
    assert equal(weights(trainer), weights(other))
    assert "1 since the start" in told[0]
    assert first["keys"][0] in told[0]
    trainer.on_train_epoch_end([])
    other.on_train_epoch_end([])
    assert trainer.logger.get_value("train_losses", -1) == other.logger.get_value("train_losses", -1)


def test_many_in_a_row_stop_with_what_was_trained(build_late: Build) -> None:
    trainer = build_late(Recipe(mode="constant", epochs=1, iterations_per_epoch=20), skip_nonfinite=True)
    batch = next(begun(trainer))
    for _ in range(11):
        trainer.train_step(spoiled(batch))
    with pytest.raises(NonFiniteLoss, match="the loss became nan") as raised:
        trainer.train_step(batch)
    assert "11 batches in a row" in raised.value.problems[0].remedy
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert equal(content["network_weights"], weights(trainer))
    assert content["ppgs"]["iteration"] == 12


def test_memory_that_stays_short_loses_no_batch(build_late: Build, demo_facts: PlanFacts) -> None:
    trainer = build_late(one_stage(demo_facts))
    calls = 0

    def short(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    trainer.network.register_forward_pre_hook(short)
    with pytest.raises(DoesNotFit):
        trainer.run_training()
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert content["ppgs"]["iteration"] == 1
    assert equal(content["network_weights"], weights(trainer))


@pytest.mark.parametrize("waiting", [False, True])
def test_a_step_reads_nothing_back(build: Build, build_late: Build, waiting: bool) -> None:
    trainer = (build if waiting else build_late)(SHORT)
    batches = begun(trainer)
    trainer.train_step(next(batches))
    with Operators() as watch:
        trainer._steps.take(next(batches), 1)
    assert watch.calls > 100
    # The check sees what the CPU waits for.
    assert bool(watch.waits) == waiting
