from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ppgs.nnunet.data.crops import Case
from ppgs.nnunet.data.keys import KeySampler
from ppgs.nnunet.host.devices import default_workers
from ppgs.schedule import PlanFacts, Recipe, resolve

SHORT = Recipe(epochs=10, iterations_per_epoch=2)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return (
        a["key"] == b["key"]
        and a["keys"] == b["keys"]
        and torch.equal(a["data"], b["data"])
        and all(torch.equal(x, y) for x, y in zip(a["target"], b["target"], strict=True))
    )


def batches(trainer: Any) -> list[dict[str, Any]]:
    loader, other = trainer.get_dataloaders()
    assert loader is other
    return list(loader)


@pytest.fixture
def reference(build: Any) -> list[dict[str, Any]]:
    return batches(build(SHORT))


def test_the_order_of_keys_is_the_trainings(reference: list[dict[str, Any]], demo_facts: PlanFacts) -> None:
    schedule = resolve(SHORT, demo_facts)
    expected = []
    for epoch in range(10):
        expected += [("train", epoch, i, schedule.stage_at(epoch).patch_size) for i in range(2)]
        expected += [
            ("validation", epoch, i, demo_facts.patch_size) for i in range(schedule.validation_iterations_at(epoch))
        ]
    keys = [b["key"] for b in reference]
    assert [(k.phase, k.epoch, k.iteration, k.patch_size) for k in keys] == expected
    for batch in reference:
        assert batch["data"].shape == (batch["key"].batch_size, 1, *batch["key"].patch_size)
        assert batch["target"][0].shape == batch["data"].shape


@pytest.mark.parametrize(
    ("device", "cpus", "processes", "expected"),
    [("cpu", 1, 1, 0), ("cpu", 2, 1, 0), ("cpu", 4, 1, 1), ("cpu", 4, 2, 0), ("cuda", 1, 1, 1), ("cuda", 64, 2, 12)],
)
def test_loader_processes_are_started_where_they_help(
    device: str, cpus: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppgs.nnunet.host.devices.cpu_count", lambda: cpus)
    assert default_workers(torch.device(device), processes) == expected


@pytest.mark.parametrize("given", ["0", "3"])
def test_nnunets_own_setting_of_the_loader_processes_is_taken(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", given)
    assert [default_workers(torch.device(device), 2) for device in ("cpu", "cuda")] == [int(given)] * 2


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_do_not_depend_on_workers(reference: list[dict[str, Any]], build: Any, workers: int) -> None:
    again = batches(build(SHORT, workers=workers))
    assert len(again) == len(reference)
    assert all(map(same, again, reference))


def test_batches_do_not_depend_on_where_the_run_was_resumed(reference: list[dict[str, Any]], build: Any) -> None:
    order = [(b["key"].phase, b["key"].epoch, b["key"].iteration) for b in reference]
    for epoch, iteration in ((0, 1), (3, 0), (7, 1), (9, 2)):
        trainer = build(SHORT, workers=1)
        trainer.current_epoch, trainer._first_iteration = epoch, iteration
        resumed = batches(trainer)
        begin = order.index(("train", epoch, iteration)) if iteration < 2 else order.index(("validation", epoch, 0))
        assert len(resumed) == len(reference) - begin
        assert all(map(same, resumed, reference[begin:]))


@pytest.mark.parametrize("patch", [(8, 8, 8), (32, 32, 32)])
def test_batches_do_not_depend_on_those_made_at_the_same_time(build: Any, patch: tuple[int, ...]) -> None:
    trainer = build(SHORT)
    trainer.get_dataloaders()
    dataset, random = trainer._dataset, np.random.default_rng(0)
    for number, name in enumerate(dataset._cases["train"].identifiers):
        # Images of many sizes, smaller than the largest patch's crops.
        shape = (20 + number, 24 + number % 3, 30)
        case = Case(
            random.normal(size=(1, *shape)).astype(np.float32),
            random.integers(0, 3, (1, *shape), np.int16),
            (),
            None,
            0,
        )
        dataset._cases["train"]._held[name] = case
    sampler = KeySampler(trainer.settings.schedule, 0)
    keys = tuple(replace(sampler.training_key(0, iteration), patch_size=patch) for iteration in range(12))
    for alone, together in zip([dataset[(key,)][0] for key in keys], dataset[keys], strict=True):
        assert same(alone, together)


def test_another_seed_gives_other_batches(reference: list[dict[str, Any]], build: Any) -> None:
    other = batches(build(SHORT, seed=1))
    assert not any(torch.equal(a["data"], b["data"]) for a, b in zip(reference, other, strict=True))


def test_samples_of_a_batch_and_of_epochs_differ(reference: list[dict[str, Any]]) -> None:
    # Patches smaller than the demo's images: two draws of a whole image may well be equal.
    crops = [crop for batch in reference if batch["key"].patch_size == (24, 24, 24) for crop in batch["data"]]
    assert len(crops) == 4
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(crops, 2))


@pytest.mark.parametrize("batchwise", [True, False])
def test_sampling_in_the_training_process_leaves_its_generators_alone(build: Any, batchwise: bool) -> None:
    loader, _ = build(SHORT, batchwise=batchwise).get_dataloaders()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()  # type: ignore[index]
    assert len(list(loader)) > 20
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == before[3]


def test_many_crops_of_few_cases_are_all_foreground_or_all_random(build: Any) -> None:
    trainer = build(Recipe(mode="performance", epochs=10, iterations_per_epoch=1))
    loader, _ = trainer.get_dataloaders()
    batch = next(loader)
    assert batch["key"].batch_size == 2 * 32**3 // 8**3 == 128
    assert batch["data"].shape == (128, 1, 8, 8, 8)
    first, second = batch["keys"][:64], batch["keys"][64:]
    assert len(set(first)) == len(set(second)) == 1
    assert [batch["key"].is_foreground(s) for s in range(128)] == [False] * 64 + [True] * 64
    # Where foreground was asked for, the crop's centre voxel was foreground before augmentation moved it a little.
    shows = [(t > 0).any().item() for t in batch["target"][0]]
    assert sum(shows[64:]) > 60


def test_random_patch_sizes_come_batch_by_batch(build: Any) -> None:
    trainer = build(Recipe(mode="random", epochs=2, iterations_per_epoch=8))
    sizes = {tuple(b["data"].shape[2:]) for b in batches(trainer) if b["key"].phase == "train"}
    assert len(sizes) > 3
