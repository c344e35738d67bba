"""Several processes that train together get the result of a single one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.nnunet.distributed import ranks
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from tests.nnunet.distributed import training_of_a_rank


def train(processes: int, scenarios: list[dict[str, Any]], environ: dict[str, str], folder: Path) -> list[Any]:
    """Return the result of each scenario."""
    folder.mkdir()
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        launched = {
            **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"},
        }
        started.append(
            subprocess.Popen(
                [sys.executable, training_of_a_rank.__file__, str(folder / "scenarios.json"), str(folder)],
                env={**os.environ, **environ, **{k: str(v) for k, v in launched.items()}},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in started:
            _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err[-3000:]
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{n}.pth", weights_only=True) for n in range(len(scenarios))]


def scenario(facts: PlanFacts, *stages: Stage, batch_dice: bool, **more: Any) -> dict[str, Any]:
    base = resolve(Recipe(mode="constant", epochs=1, iterations_per_epoch=2), facts)
    schedule: Schedule = base.model_copy(update={"stages": stages})
    return {
        "schedule": schedule.model_dump(mode="json"),
        "batch_dice": batch_dice,
        "batchwise": not batch_dice,
    } | more


@pytest.fixture
def stages(demo_facts: PlanFacts) -> list[Stage]:
    """Batches that two processes share evenly, unevenly, and of which one has nothing; whole, and in parts.

    None has a bottleneck of two voxels, whose normalisation makes a sign of any difference.
    """
    middle = (16, 16, 16)
    return [
        Stage(patch_size=(8, 8, 8), batch_size=6, epochs=1, cases=2),
        Stage(patch_size=middle, batch_size=1, epochs=1),
        Stage(patch_size=middle, batch_size=3, epochs=1, accumulation=3),
        Stage(patch_size=middle, batch_size=3, epochs=1),
    ]


def test_two_processes_train_what_one_trains(
    demo_facts: PlanFacts, demo_environ: dict[str, str], tmp_path: Path, stages: list[Stage]
) -> None:
    once = [scenario(demo_facts, *stages, batch_dice=batch_dice) for batch_dice in (False, True)]
    # Where the loss is a mean over samples a process runs out of memory, and both train in parts from there on.
    twice = [once[0] | {"out_of_memory": {"1": 2}}, once[1]]
    alone = train(1, once, demo_environ, tmp_path / "alone")
    together = train(2, twice, demo_environ, tmp_path / "together")
    for one, two in zip(alone, together, strict=True):
        assert one["log"]["train_losses"] == pytest.approx(two["log"]["train_losses"], rel=2e-4)
        assert one["log"]["val_losses"] == pytest.approx(two["log"]["val_losses"], rel=1e-3)
        for first, second in zip(
            one["log"]["dice_per_class_or_region"], two["log"]["dice_per_class_or_region"], strict=True
        ):
            assert first == pytest.approx(second, abs=5e-3, nan_ok=True)
        for name, value in one["weights"].items():
            assert torch.allclose(value, two["weights"][name], rtol=1e-3, atol=3e-4), name


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize(("local", "interface"), [(2, "lo"), (1, None)])
def test_processes_of_one_machine_need_no_network(
    monkeypatch: pytest.MonkeyPatch, kind: str, local: int, interface: str | None
) -> None:
    # Set first, so that what `connect` sets is undone.
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    seen: list[str | None] = []
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda *_, **__: seen.append(os.environ.get("GLOO_SOCKET_IFNAME")),
    )
    group: Any = ranks.ProcessGroup.__new__(ranks.ProcessGroup)
    group.rank, group.count, group.local_rank, group.local_count, group._store = 0, 2, 0, local, None
    group.connect(torch.device(kind))
    assert seen == [interface]
