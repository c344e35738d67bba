from __future__ import annotations

import errno
import os
import pickle
import random
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from ppgs.errors import DamagedRun, DoesNotFit, NoCheckpoint, NonFiniteLoss, RunError, StoppedEarly, StorageFailed
from ppgs.nnunet.checkpoints import content as contents
from ppgs.nnunet.checkpoints import files as checkpoints
from ppgs.nnunet.checkpoints.files import CheckpointWriter, load_checkpoint
from ppgs.schedule import Recipe
from tests.helpers.trainers import begun, equal, weights

SHORT = Recipe(epochs=10, iterations_per_epoch=3)


class Clock:
    """Asks to stop before the given call of train_step or validation_step."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self) -> str | None:
        self.calls += 1
        return "SIGTERM" if self.calls > self.at else None


@pytest.fixture
def whole(build: Any) -> Any:
    trainer = build(SHORT)
    trainer.run_training()
    return trainer


# Within the first epoch, at an epoch's end, in validation, in the last epoch.
@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (0, "in epoch 1 after iteration 0"),
        (2, "in epoch 1 after iteration 2"),
        (3, "in epoch 1 after iteration 3"),
        (7, "in epoch "),
        (37, "in epoch 10 "),
    ],
)
def test_a_stopped_and_resumed_training_ends_with_the_same_weights(
    build: Any, whole: Any, stop: int, told: str
) -> None:
    first = build(SHORT, stop_requested=Clock(stop))
    with pytest.raises(StoppedEarly, match=told):
        first.run_training()
    path = first.settings.run.checkpoint_latest
    second = build(SHORT)
    second.restore(load_checkpoint(path), path)
    second.run_training()
    assert equal(weights(second), weights(whole))
    ours, theirs = second.logger.get_checkpoint(), whole.logger.get_checkpoint()
    for name in ("train_losses", "val_losses", "ema_fg_dice", "lrs"):
        assert np.array_equal(ours[name], theirs[name])
    assert second._best_ema == whole._best_ema


def test_the_files_after_a_training(whole: Any) -> None:
    run = whole.settings.run
    names = {p.name for p in run.path.iterdir() if p.suffix == ".pth"}
    assert names == {"checkpoint_final.pth", "checkpoint_best.pth"}
    final, best = load_checkpoint(run.checkpoint_final), load_checkpoint(run.checkpoint_best)
    assert final["current_epoch"] == 10
    assert final["trainer_name"] == "nnUNetTrainer"
    assert best["_best_ema"] == max(final["logging"]["ema_fg_dice"])
    assert equal(final["network_weights"], weights(whole))


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    found = (t.untyped_storage() for t in tensors)
    return {s.data_ptr(): s.nbytes() for s in found}


def test_weights_with_several_names_are_stored_once_and_known_by_all(whole: Any, build: Any, tmp_path: Path) -> None:
    content = load_checkpoint(whole.settings.run.checkpoint_final)
    state, saved = whole.network.state_dict(), content["network_weights"]
    assert list(saved) == list(state)
    assert storages(saved.values()).keys() != storages(state.values()).keys()
    same = {name: [n for n in state if state[n].data_ptr() == state[name].data_ptr()] for name in state}
    assert max(map(len, same.values())) == 4
    assert all(len(storages(saved[n] for n in names)) == 1 for names in same.values())
    parameters = sum(p.numel() * p.element_size() for p in whole.network.parameters())
    assert sum(storages(saved.values()).values()) == parameters
    assert whole.settings.run.checkpoint_final.stat().st_size < 2.05 * parameters + 200_000
    # As they were written before: every name with its own copy.
    apart = {**content, "network_weights": {k: v.clone() for k, v in saved.items()}}
    torch.save(apart, tmp_path / "apart.pth")
    assert (tmp_path / "apart.pth").stat().st_size > 3.5 * parameters
    trainer = build(SHORT)
    trainer.restore(load_checkpoint(tmp_path / "apart.pth"), tmp_path)
    assert equal(weights(trainer), weights(whole))


def test_plain_copies_share_what_was_shared_and_nothing_else() -> None:
    base = torch.arange(6.0)
    given = {"a": base, "b": base.detach(), "half": base[:3], "turned": base.view(2, 3).T, "other": base.clone()}
    plain = contents.to_plain(given)
    base += 1
    assert plain["a"] is plain["b"] and len(storages(plain.values())) == 4
    assert torch.equal(plain["a"], base - 1) and torch.equal(plain["half"], base[:3] - 1)
    assert torch.equal(plain["turned"], (base - 1).view(2, 3).T)


def test_loading_runs_nothing_and_names_the_file(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {marker}",)

    for name, write in {
        "pickle.pth": lambda p: p.write_bytes(pickle.dumps(Evil())),
        "zip.pth": lambda p: torch.save({"network_weights": Evil()}, p),
        "empty.pth": lambda p: p.write_bytes(b""),
        "text.pth": lambda p: p.write_text("hello"),
        "other.pth": lambda p: torch.save({"a": 1}, p),
    }.items():
        write(tmp_path / name)
        with pytest.raises(DamagedRun) as refused:
            load_checkpoint(tmp_path / name)
        assert name in refused.value.problems[0].where
        assert refused.value.exit_code == 4
    assert not marker.exists()
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(DamagedRun):
        load_checkpoint(tmp_path / "folder.pth")
    with pytest.raises(NoCheckpoint):
        load_checkpoint(tmp_path / "missing.pth")


def test_a_truncated_file_is_damaged_wherever_it_ends(tmp_path: Path) -> None:
    torch.save({"network_weights": torch.zeros(100)}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(DamagedRun):
            load_checkpoint(tmp_path / "cut.pth")
    # PyTorch seeks to the place that this names.
    (tmp_path / "cut.pth").write_bytes(content[:-6] + b"\xff\xff\xff\x7f" + content[-2:])
    with pytest.raises(DamagedRun):
        load_checkpoint(tmp_path / "cut.pth")


def test_a_checkpoint_with_an_object_of_a_lab_is_refused_in_plain_words(tmp_path: Path) -> None:
    torch.save({"init_args": {"where": PurePosixPath("/lab")}}, tmp_path / "stock.pth")
    with pytest.raises(DamagedRun, match="holds code, which was not run") as refused:
        load_checkpoint(tmp_path / "stock.pth")
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    ("problem", "kind", "code"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), StorageFailed, 75),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), StorageFailed, 75),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), DoesNotFit, 3),
        (MemoryError(), DoesNotFit, 3),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), DoesNotFit, 3),
    ],
)
def test_a_file_that_cannot_be_read_at_the_moment_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: Exception, kind: type[Exception], code: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(torch, "load", broken)
    with pytest.raises(kind) as refused:
        load_checkpoint(tmp_path / "latest.pth")
    assert refused.value.exit_code == code  # type: ignore[attr-defined]
    assert "may be complete" in refused.value.problems[0].remedy  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails to be read")
def test_a_real_read_error_is_not_called_damaged() -> None:
    with pytest.raises(StorageFailed, match="Input/output error"):
        load_checkpoint(Path("/proc/self/mem"))


def test_a_truncated_checkpoint_is_damaged(whole: Any, tmp_path: Path) -> None:
    content = whole.settings.run.checkpoint_final.read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        (tmp_path / "c.pth").write_bytes(content[: rng.randrange(len(content))])
        with pytest.raises(DamagedRun):
            load_checkpoint(tmp_path / "c.pth")


def test_a_checkpoint_of_another_schedule_is_refused(build: Any, whole: Any) -> None:
    path = whole.settings.run.checkpoint_final
    other = build(Recipe(epochs=11, iterations_per_epoch=3))
    with pytest.raises(RunError, match="another schedule"):
        other.restore(load_checkpoint(path), path)


def test_random_states_are_restored_exactly() -> None:
    states = contents.random_states()
    drawn = random.random(), np.random.rand(), torch.rand(1)
    contents.restore_random_states(states)
    assert (random.random(), np.random.rand(), torch.rand(1)) == drawn


def test_a_failed_write_is_told_at_the_next_and_keeps_the_old(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    writer = checkpoints.CheckpointWriter(told.append)
    content = {"current_epoch": 1, "ppgs": {"iteration": 0}}
    writer.submit(content, tmp_path / "c.pth", tmp_path / "best.pth")
    writer.wait()
    assert told[0]["file"] == "c.pth"
    assert (tmp_path / "best.pth").read_bytes() == (tmp_path / "c.pth").read_bytes()
    before = (tmp_path / "c.pth").read_bytes()
    writer.submit({**content, "bad": lambda: None}, tmp_path / "c.pth")
    with pytest.raises(Exception, match=r"local object '.*<lambda>'"):
        writer.wait()
    assert (tmp_path / "c.pth").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"c.pth", "best.pth"}


def test_a_write_that_does_not_end_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(checkpoints, "_LONGEST_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(checkpoints, "write_atomically", lambda *_: released.wait(60))
    writer = CheckpointWriter(lambda _: None)
    writer.submit({"current_epoch": 1, "ppgs": {"iteration": 0}}, tmp_path / "c.pth")
    with pytest.raises(StorageFailed, match="has not ended") as stopped:
        writer.wait()
    assert stopped.value.exit_code == 75
    # The training that ends because of that does not wait for it again.
    writer.wait()
    released.set()


@pytest.mark.parametrize("where", ["loss", "gradients"])
def test_what_is_not_finite_names_the_cases_and_touches_no_weight(build: Any, where: str) -> None:
    trainer = build(SHORT)
    batch = next(begun(trainer))
    before = weights(trainer)
    if where == "loss":
        batch["data"] = batch["data"] * float("nan")
    else:
        next(trainer.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLoss, match=f"{where}.* in epoch 1, iteration 1\n") as raised:
        trainer.train_step(batch)
    assert equal(weights(trainer), before)
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert equal(content["network_weights"], before) and content["ppgs"]["iteration"] == 0
    assert set(batch["keys"]) <= set(raised.value.problems[0].where.removeprefix("cases ").split(", "))


def test_batches_that_are_not_finite_are_left_out_on_request(build: Any) -> None:
    told: list[str] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "warning":
            told.append(fields["message"])

    trainer = build(SHORT, skip_nonfinite=True, emit=emit)
    batch = next(begun(trainer))
    before = weights(trainer)
    spoiled = {**batch, "data": batch["data"] * float("nan")}
    results = [trainer.train_step(dict(spoiled))]
    assert equal(weights(trainer), before)
    assert "1 since the start" in told[0] and batch["keys"][0] in told[0]
    results.append(trainer.train_step(batch))
    assert not equal(weights(trainer), before)
    trainer.on_train_epoch_end(results)
    assert trainer.logger.get_value("train_losses", -1) == results[1]["loss"]
    # This many in a row are not the cases' fault.
    for _ in range(10):
        trainer.train_step(dict(spoiled))
    with pytest.raises(NonFiniteLoss) as raised:
        trainer.train_step(dict(spoiled))
    assert "11 batches in a row" in raised.value.problems[0].remedy
