"""Loader processes that die or hang, memory that runs out, disks that are full, checkpoints that were changed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.errors import DamagedRun, DiskFull, DoesNotFit, LoaderFailed, PpgsError, RunError, StorageFailed
from ppgs.nnunet.checkpoints.files import CheckpointWriter, load_checkpoint
from ppgs.nnunet.data.augmentation import Crops
from ppgs.nnunet.data.dataset import KeyedBatches
from ppgs.nnunet.data.keys import BatchKey
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.schedule import PlanFacts, Recipe, Schedule
from tests.helpers.disks import become_read_only
from tests.helpers.trainers import equal, one_stage, weights

SHORT = Recipe(epochs=10, iterations_per_epoch=3)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "was killed"), (signal.SIGSTOP, "hangs")])
def test_a_loader_process_that_dies_or_hangs_stops_with_nothing_lost(
    build: Any, number: signal.Signals, said: str
) -> None:
    # Where nothing hangs, a machine under load has all the time it wants.
    trainer = build(SHORT, workers=1, loader_timeout=10.0 if number == signal.SIGSTOP else 300.0)
    step, taken = trainer.train_step, 0

    def counted(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal taken
        if taken == 4:
            (worker,) = trainer.dataloader_train._iterator._workers
            os.kill(worker.pid, number)
            # PyTorch would raise here, in the middle of a step.
            time.sleep(0.5)
        taken += 1
        return step(batch)

    trainer.train_step = counted
    with pytest.raises(LoaderFailed, match=said) as stopped:
        trainer.run_training()
    assert taken > 4
    assert stopped.value.exit_code == 75
    assert "ppgs resume" in stopped.value.problems[0].remedy
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert content["current_epoch"] * 3 + content["ppgs"]["iteration"] == taken
    assert equal(content["network_weights"], weights(trainer))


def test_loader_processes_and_signals_end_with_the_training(build: Any) -> None:
    alarm = signal.getsignal(signal.SIGALRM)
    trainer = build(SHORT, workers=1)
    loader, _ = trainer.get_dataloaders()
    next(loader)
    assert len(multiprocessing.active_children()) == 1
    loader.close()
    loader.close()
    trainer.run_training()
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGALRM) is alarm
    # PyTorch puts its own there for good, with the first loader process.
    assert "torch" in getattr(signal.getsignal(signal.SIGCHLD), "__module__", "")


@pytest.mark.parametrize("kind", [StorageFailed, DamagedRun])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_case_that_cannot_be_read_stops_with_nothing_lost(
    build: Any, workers: int, kind: type[PpgsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the case is damaged: with several processes the others must be told, or they wait without end."""
    cut = KeyedBatches._cut

    def gone(self: KeyedBatches, keys: tuple[BatchKey, ...]) -> tuple[Crops, list[str]]:
        # The last of three that are made together.
        if any((key.epoch, key.iteration, key.phase) == (1, 2, "train") for key in keys):
            raise kind("a case cannot be read", "somewhere", "mount it")
        return cut(self, keys)

    monkeypatch.setattr(KeyedBatches, "_cut", gone)
    trainer = build(SHORT, workers=workers)
    with pytest.raises(kind, match="cannot be read"):
        trainer.run_training()
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert (content["current_epoch"], content["ppgs"]["iteration"]) == (1, 2)
    assert equal(content["network_weights"], weights(trainer))


class OutOfMemory:
    """Runs out of memory at given calls of the network."""

    def __init__(self, trainer: PpgsTrainer, *calls: int) -> None:
        self.calls, self.count = calls, 0
        self.batches: list[int] = []
        trainer.network.register_forward_pre_hook(self)

    def __call__(self, _: Any, inputs: tuple[torch.Tensor]) -> None:
        self.count += 1
        self.batches.append(len(inputs[0]))
        if self.count in self.calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_memory_that_runs_out_is_met_by_accumulation_of_the_same_batch(build: Any, demo_facts: PlanFacts) -> None:
    whole = build(one_stage(demo_facts))
    whole.run_training()
    told: list[tuple[str, dict[str, Any]]] = []
    trainer = build(one_stage(demo_facts), emit=lambda kind, **fields: told.append((kind, fields)))
    trainer.configuration_manager.configuration["batch_dice"] = False
    network = OutOfMemory(trainer, 2)
    trainer.run_training()
    (message,) = [f["message"] for k, f in told if k == "warning"]
    assert "trained in 2 parts" in message
    # The second step is taken again in two parts, as are all later ones.
    assert network.batches[:4] == [4, 4, 2, 2]
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(trainer)[name], atol=1e-4), name


@pytest.mark.parametrize("exact", [True, False])
def test_memory_that_stays_short_stops_resumable_with_predicted_and_available(
    build: Any, demo_facts: PlanFacts, exact: bool
) -> None:
    trainer = build(one_stage(demo_facts), predicted_memory=(3 << 30,))
    trainer.configuration_manager.configuration["batch_dice"] = not exact
    network = OutOfMemory(trainer, 2, 3)
    with pytest.raises(DoesNotFit, match=r"stage 1: predicted 3.0 GiB, available N/A") as refused:
        trainer.run_training()
    assert refused.value.exit_code == 3
    assert network.count == (3 if exact else 2)
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert content["ppgs"]["iteration"] == 1
    assert equal(content["network_weights"], weights(trainer))


def test_memory_that_runs_out_within_an_update_leaves_the_checkpoint_before_it(
    build: Any, demo_facts: PlanFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(one_stage(demo_facts))
    step, taken = trainer.optimizer.step, 0

    def short_of_memory() -> None:
        nonlocal taken
        taken += 1
        if taken == trainer.num_iterations_per_epoch + 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        step()

    monkeypatch.setattr(trainer.optimizer, "step", short_of_memory)
    with pytest.raises(DoesNotFit, match="out of memory in stage 1"):
        trainer.run_training()
    content = load_checkpoint(trainer.settings.run.checkpoint_latest)
    assert (content["current_epoch"], content["ppgs"]["iteration"]) == (1, 0)


def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Path) -> None:
    writer = CheckpointWriter(lambda _: None)
    path = small_disk / "c.pth"

    def content(epoch: int) -> dict[str, Any]:
        return {"current_epoch": epoch, "ppgs": {"iteration": 0}, "weights": torch.ones(700_000)}

    writer.submit(content(1), path)
    writer.wait()
    before = path.read_bytes()
    (small_disk / "others").write_bytes(bytes(4_500_000))
    for _ in range(2):
        writer.submit(content(2), path)
        with pytest.raises(DiskFull) as full:
            writer.wait()
        assert str(path) in full.value.problems[0].where
        assert path.read_bytes() == before
        assert {p.name for p in small_disk.iterdir()} == {"c.pth", "others"}
    (small_disk / "others").unlink()
    writer.submit(content(2), path)
    writer.wait()
    assert torch.load(path, weights_only=True)["current_epoch"] == 2


def test_a_checkpoint_that_failed_is_told_at_once_and_once(failing_disk: Path) -> None:
    writer = CheckpointWriter(lambda _: None)
    path = failing_disk / "c.pth"
    content = {"current_epoch": 1, "ppgs": {"iteration": 0}, "weights": torch.ones(1000)}
    writer.submit(content, path)
    writer.wait()
    assert writer.failure() is None
    before = path.read_bytes()
    become_read_only(failing_disk)
    writer.submit(content | {"current_epoch": 2}, path)
    end = time.monotonic() + 60
    while (failure := writer.failure()) is None and time.monotonic() < end:
        time.sleep(0.01)
    assert isinstance(failure, StorageFailed)
    assert "Read-only" in str(failure) and str(path) in failure.problems[0].where
    writer.wait()
    assert path.read_bytes() == before


@pytest.fixture
def saved(build: Any, demo_facts: PlanFacts) -> Path:
    schedule: Schedule = one_stage(demo_facts)
    trainer = build(schedule)
    trainer.run_training()
    path: Path = trainer.settings.run.checkpoint_final
    return path


def test_flipped_bits_are_detected_or_harmless(saved: Path, tmp_path: Path) -> None:
    whole, content = load_checkpoint(saved), bytearray(saved.read_bytes())
    rng = random.Random(1)
    detected = 0
    for _ in range(40):
        flipped = bytearray(content)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        (tmp_path / "c.pth").write_bytes(flipped)
        try:
            found = load_checkpoint(tmp_path / "c.pth")
        except DamagedRun:
            detected += 1
        else:
            assert equal(found["network_weights"], whole["network_weights"])
    assert detected > 20


def test_a_changed_weight_and_a_newer_format_are_refused(saved: Path, tmp_path: Path) -> None:
    content = torch.load(saved, weights_only=True)
    next(iter(content["network_weights"].values())).view(-1)[0] += 1e-6
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(DamagedRun, match="not what was written"):
        load_checkpoint(tmp_path / "changed.pth")
    content["ppgs"]["format"] = 99
    torch.save(content, tmp_path / "newer.pth")
    with pytest.raises(RunError, match="format 99"):
        load_checkpoint(tmp_path / "newer.pth")
    # What was written before there were digests is still read.
    content["ppgs"]["format"] = 1
    del content["ppgs"]["digest"]
    torch.save(content, tmp_path / "older.pth")
    assert load_checkpoint(tmp_path / "older.pth")["ppgs"]["format"] == 1
