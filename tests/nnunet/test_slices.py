"""Pictures for those who watch: they show the case, and the training does not notice."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppgs.nnunet import slices
from ppgs.nnunet.slices import SliceWriter, is_due
from ppgs.schedule import PlanFacts, Recipe, Schedule, resolve

SHORT = Recipe(epochs=10, iterations_per_epoch=1)


def told(events: list[tuple[str, dict[str, Any]]], kind: str) -> list[dict[str, Any]]:
    return [fields for name, fields in events if name == kind]


def listening(build: Any, schedule: Any = SHORT, **more: Any) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    trainer = build(schedule, emit=lambda kind, **fields: events.append((kind, fields)), **more)
    return trainer, events


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(np.all(first == second))


def test_a_picture_is_due_at_every_stages_end_and_ten_times_at_least(demo_facts: PlanFacts) -> None:
    def due(recipe: Recipe) -> list[int]:
        schedule = resolve(recipe, demo_facts)
        return [e for e in range(schedule.epochs) if is_due(schedule, e)]

    growing: Schedule = resolve(Recipe(epochs=45), demo_facts)
    ends = {growing.first_epoch(i) + s.epochs - 1 for i, s in enumerate(growing.stages)}
    assert ends | {0} <= set(due(Recipe(epochs=45)))
    assert due(Recipe(mode="constant", epochs=1000)) == [0, *range(99, 1000, 100)]
    assert due(Recipe(mode="constant", epochs=3)) == [0, 1, 2]
    assert due(Recipe(mode="constant", epochs=1)) == [0]


def test_every_stage_leaves_a_picture(build: Any) -> None:
    trainer, events = listening(build)
    trainer.run_training()
    written = told(events, "slice_written")
    assert told(events, "warning") == []
    assert [(w["epoch"], w["stage"]) for w in written] == [(i, i) for i in range(10)]
    assert [w["file"] for w in written] == sorted(p.name for p in trainer.settings.run.slices.iterdir())
    _, validation = trainer.do_split()
    for one in written:
        with np.load(trainer.settings.run.slices / one["file"], allow_pickle=False) as file:
            content = dict(file)
        assert {k: content[k].dtype for k in ("image", "reference", "prediction")} == dict.fromkeys(
            ("image", "reference", "prediction"), np.dtype(np.uint8)
        )
        assert content["image"].shape == content["reference"].shape == content["prediction"].shape == (32, 32)
        assert content["spacing"].tolist() == [1.0, 1.0]
        assert (int(content["epoch"]), int(content["stage"])) == (one["epoch"], one["stage"])
        assert str(content["case"]) == one["case"] and one["case"] in validation
        # Organ and lesion are both in the slice that was chosen, and the image is brighter where they are.
        assert set(np.unique(content["reference"])) == {0, 1, 2}
        assert content["image"][content["reference"] > 0].mean() > content["image"][content["reference"] == 0].mean()


def test_the_reference_lies_where_the_case_has_it(build: Any) -> None:
    trainer, events = listening(build)
    trainer.on_train_start()
    trainer._slices.write(0)
    (one,) = told(events, "slice_written")
    with np.load(trainer.settings.run.slices / one["file"]) as file:
        index, reference, image = int(file["index"]), file["reference"], file["image"]
    data, labels, _, _ = trainer._slices._dataset.load_case(one["case"])
    # The demo's patch is as large as its images.
    assert np.array_equal(reference, np.maximum(labels[0, index], 0))
    assert np.corrcoef(image.ravel(), data[0, index].ravel())[0, 1] > 0.98


def test_the_prediction_is_the_networks(build: Any) -> None:
    trainer, _ = listening(build)
    trainer.on_train_start()
    writer: SliceWriter = trainer._slices
    patch, _, depth = writer._crop(*slices._choose(writer._dataset))
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(torch.from_numpy(patch)[None])[0]
    assert np.array_equal(writer._predict(patch, depth), output[0].argmax(0)[depth].numpy())


def test_training_with_and_without_is_equal_to_the_last_bit(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pictures, events = listening(build)
    with_pictures.run_training()
    assert len(told(events, "slice_written")) == 10
    monkeypatch.setattr(SliceWriter, "write", lambda *_: None)
    without, events = listening(build)
    without.run_training()
    assert told(events, "slice_written") == []
    one, other = (t._content(10, 0) for t in (with_pictures, without))
    for name in ("network_weights", "optimizer_state", "inference_allowed_mirroring_axes"):
        assert same(one[name], other[name]), name
    assert same(one["ppgs"]["random"], other["ppgs"]["random"])
    for name in ("train_losses", "val_losses", "ema_fg_dice"):
        assert one["logging"][name] == other["logging"][name]


@pytest.mark.parametrize("training", [True, False])
def test_no_state_of_the_process_changes(build: Any, training: bool) -> None:
    trainer, events = listening(build)
    trainer.on_train_start()
    trainer.network.train(training)
    # A network that draws random numbers even when it only predicts.
    trainer.network.register_forward_pre_hook(lambda _, inputs: (torch.rand(3), None)[1])
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads())
    weights = copy.deepcopy(trainer.network.state_dict())
    trainer._slices.write(0)
    assert len(told(events, "slice_written")) == 1
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate(), torch.get_num_threads())
    assert same(before, after)
    assert same(weights, trainer.network.state_dict())
    assert trainer.network.training is training
    assert all(p.grad is None for p in trainer.network.parameters())


def test_what_goes_wrong_is_told_once_and_the_training_goes_on(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory for a picture")

    monkeypatch.setattr(SliceWriter, "_predict", fail)
    trainer, events = listening(build)
    trainer.run_training()
    assert [w["message"] for w in told(events, "warning")] == [
        "the slice view gets no more pictures: no memory for a picture"
    ]
    assert trainer.current_epoch == 10
    assert not list(Path(trainer.settings.run.slices).glob("*"))


class Cases:
    """A dataset by hand: one channel of 12 x 40 x 30 voxels, a sampled voxel for every given one."""

    shape = (1, 12, 40, 30)

    def __init__(self, cases: dict[str, dict[Any, list[tuple[int, int, int]]]]) -> None:
        self._cases = cases
        self.identifiers = list(cases)

    def load_case(self, name: str) -> Any:
        places = {k: np.array([(0, *p) for p in v]).reshape(-1, 4) for k, v in self._cases[name].items()}
        return np.zeros(self.shape), np.zeros(self.shape), None, {"class_locations": places}


def test_the_case_with_most_classes_and_then_most_foreground_is_chosen() -> None:
    large, small = [(3, y, 5) for y in range(20)], [(4, 7, 7)]
    cases = {"a": {1: large, 2: []}, "c": {1: small, 2: small}, "b": {1: small, 2: small}, "d": {1: large * 9, 2: []}}
    assert slices._choose(Cases(cases)) == ("b", (4, 7, 7))
    assert slices._choose(Cases({k: cases[k] for k in "ad"})) == ("d", (3, 9, 5))
    # nnU-Net's list of all that is annotated is no class.
    cases["a"][(-1, 0, 1, 2)] = large * 50
    assert slices._choose(Cases(cases))[0] == "b"


def test_a_case_without_foreground_shows_its_middle() -> None:
    assert slices._choose(Cases({"a": {1: []}})) == ("a", (6, 20, 15))


@pytest.mark.parametrize(
    ("middle", "wide", "whole", "window"),
    [(20, 10, 40, [15, 25]), (2, 10, 40, [0, 10]), (39, 10, 40, [30, 40]), (3, 10, 6, [-2, 8]), (3, 1, 6, [3, 4])],
)
def test_the_window_stays_within_the_image(middle: int, wide: int, whole: int, window: list[int]) -> None:
    assert slices._window(middle, wide, whole) == window
