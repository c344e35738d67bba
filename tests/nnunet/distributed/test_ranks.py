"""Several processes that train together get the result of a single one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ppgs.errors import BadInput
from ppgs.nnunet.distributed import ranks
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, resolve
from tests.nnunet.distributed import forked, messages_of_a_rank, training_of_a_rank


def started(processes: int, script: ModuleType, environ: dict[str, str], *arguments: Path) -> None:
    """Run a script's `main` in several processes that are one another's ranks."""
    command = [sys.executable, str(forked.__file__), script.__name__, str(processes), str(os.getpid())]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def train(processes: int, scenarios: list[dict[str, Any]], environ: dict[str, str], folder: Path) -> list[Any]:
    """Return the result of each scenario."""
    folder.mkdir()
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    started(processes, training_of_a_rank, environ, folder / "scenarios.json", folder)
    return [torch.load(folder / f"{n}.pth", weights_only=True) for n in range(len(scenarios))]


def exchange(processes: int, folder: Path) -> list[dict[str, Any]]:
    """Return the result of each rank of `messages_of_a_rank`."""
    folder.mkdir()
    started(processes, messages_of_a_rank, {}, folder)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (only,) = exchange(1, tmp_path_factory.mktemp("alone") / "1")
    return only


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_one_message_an_iteration_trains_what_one_process_and_what_ddp_trains(
    one_process: dict[str, Any], processes: int, tmp_path: Path
) -> None:
    for rank, found in enumerate(exchange(processes, tmp_path / "ranks")):
        assert found["losses"] == pytest.approx(one_process["losses"], rel=1e-5)
        for name, value in one_process["weights"].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found["weights"][name], found["reference"][name], rtol=1e-5, atol=1e-6)
        # Nothing but the gradients' message, always in the same memory.
        assert found["collectives"] == [["all_reduce"]] * len(one_process["losses"])
        assert found["buffers"] == 1
        assert found["short"] == ("CUDA out of memory." if rank == 1 else "on another rank")
        assert found["asks"] == [False, False, True, False]
        assert found["error"] == "StorageFailed" and found["kept"]


def scenario(facts: PlanFacts, *stages: Stage, batch_dice: bool, iterations: int = 2, **more: Any) -> dict[str, Any]:
    base = resolve(Recipe(mode="constant", epochs=1, iterations_per_epoch=iterations), facts)
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


def assert_alike(one: dict[str, Any], several: dict[str, Any]) -> None:
    assert one["log"]["train_losses"] == pytest.approx(several["log"]["train_losses"], rel=2e-4)
    assert one["log"]["val_losses"] == pytest.approx(several["log"]["val_losses"], rel=1e-3)
    for first, second in zip(
        one["log"]["dice_per_class_or_region"], several["log"]["dice_per_class_or_region"], strict=True
    ):
        assert first == pytest.approx(second, abs=5e-3, nan_ok=True)
    for name, value in one["weights"].items():
        assert torch.allclose(value, several["weights"][name], rtol=1e-3, atol=3e-4), name


@pytest.mark.parametrize(("processes", "losses"), [(2, "both"), (3, "mean"), (4, "batch")])
def test_several_processes_train_what_one_trains(
    demo_facts: PlanFacts,
    demo_environ: dict[str, str],
    tmp_path: Path,
    stages: list[Stage],
    processes: int,
    losses: str,
) -> None:
    mean, batch = (scenario(demo_facts, *stages, batch_dice=batch_dice) for batch_dice in (False, True))
    chosen = {"both": [mean, batch], "mean": [mean], "batch": [batch]}[losses]
    # Where the loss is a mean over samples a process runs out of memory, and all train in parts from there on.
    met = [mean | {"out_of_memory": {"1": 2}} if one is mean else one for one in chosen]
    alone = train(1, chosen, demo_environ, tmp_path / "alone")
    together = train(processes, met, demo_environ, tmp_path / "together")
    for one, several in zip(alone, together, strict=True):
        assert_alike(one, several)
    if mean in chosen:
        # One message an iteration, and one more where memory ran out.
        said = together[0]["collectives"]
        assert [len(names) for names in said] == [1, 2, *[1] * 6]
        assert {name for names in said for name in names} == {"all_reduce"}


@pytest.mark.parametrize("how", ["unreadable", "stops"])
def test_what_only_one_of_them_meets_stops_all_at_the_same_iteration(
    demo_facts: PlanFacts, demo_environ: dict[str, str], tmp_path: Path, stages: list[Stage], how: str
) -> None:
    # A stop is heard of with the message of the second iteration.
    at = {"1": 2 if how == "unreadable" else 1}
    scenarios = [
        scenario(demo_facts, stages[0], batch_dice=batch_dice, iterations=4, **{how: at})
        for batch_dice in (False, True)
    ]
    for found in train(2, scenarios, demo_environ, tmp_path / "2"):
        assert found["error"] == ("StorageFailed" if how == "unreadable" else "StoppedEarly")
        assert (found["place"], found["saved"]) == ([0, 2], True)


class Store(dict[str, str]):
    """The parts of PyTorch's store that a rank uses."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def check(self, keys: list[str]) -> bool:
        return self.keys() >= set(keys)

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)


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
    group.rank, group.count, group.local_rank, group.local_count = 0, 2, 0, local
    group._store = Store({"ppgs/ready/1": "1"})
    group.connect(torch.device(kind))
    assert seen == [interface]


def test_a_message_that_never_arrives_is_given_up_once_a_stop_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL waits for a process that is gone; the launcher asks the others to stop."""
    clock = itertools.count()
    monkeypatch.setattr("ppgs.nnunet.distributed.ranks.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=abs))
    polls = 0

    class Work:
        def is_completed(self) -> bool:
            nonlocal polls
            polls += 1
            return False

    with pytest.raises(RuntimeError, match="no answer"):
        ranks._await(Work(), lambda: polls > 5, lambda: False)
    assert 5 < polls < 30

    class Done(Work):
        def is_completed(self) -> bool:
            return True

    ranks._await(Done(), lambda: True, lambda: True)
    # One that has told its error will not take part, and nobody asks the others to stop.
    with pytest.raises(RuntimeError, match="reported an error"):
        ranks._await(Work(), lambda: False, lambda: polls > 50)


def test_a_rank_does_not_wait_for_one_that_has_reported_an_error() -> None:
    group = ranks.ProcessGroup.__new__(ranks.ProcessGroup)
    store = Store()
    group.rank, group.count, group.local_count, group._store = 0, 2, 2, store
    store.set("ppgs/error", json.dumps(BadInput("its own fault", "there", "mend it").to_record()))
    with pytest.raises(BadInput, match="its own fault"):
        group.connect(torch.device("cpu"))
