"""Pictures for those who watch: they show the case, and the training does not notice."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.trainer import slices
from ppgs.nnunet.trainer.slices import SliceWriter, is_due
from ppgs.runs.folder import RunFolder
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
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads())  # type: ignore[index]
    weights = copy.deepcopy(trainer.network.state_dict())
    trainer._slices.write(0)
    assert len(told(events, "slice_written")) == 1
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate(), torch.get_num_threads())  # type: ignore[index]
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
    cases["a"][(-1, 0, 1, 2)] = large * 50  # type: ignore[index]
    assert slices._choose(Cases(cases))[0] == "b"


def test_a_case_without_foreground_shows_its_middle() -> None:
    assert slices._choose(Cases({"a": {1: []}})) == ("a", (6, 20, 15))


@pytest.mark.parametrize(
    ("middle", "wide", "whole", "window"),
    [(20, 10, 40, [15, 25]), (2, 10, 40, [0, 10]), (39, 10, 40, [30, 40]), (3, 10, 6, [-2, 8]), (3, 1, 6, [3, 4])],
)
def test_the_window_stays_within_the_image(middle: int, wide: int, whole: int, window: list[int]) -> None:
    assert slices._window(middle, wide, whole) == window


class Echo(torch.nn.Module):
    """A network that is known: its logits are its input's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Any) -> Any:
        self.shapes.append(tuple(x.shape))
        return [x]


def trainer_of(
    folder: Path, labels: dict[str, Any], patch: tuple[int, ...], *, order: Any = None, is_cascaded: bool = False
) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """Return the parts of a trainer that a `SliceWriter` uses, with nnU-Net's own label manager."""
    events: list[tuple[str, dict[str, Any]]] = []
    run = RunFolder(folder)
    run.own.mkdir(parents=True)
    schedule = SimpleNamespace(epochs=1, stage_index_at=lambda epoch: 0)
    settings = SimpleNamespace(
        run=run, schedule=schedule, ranks=Ranks(), bfloat16=False,
        emit=lambda kind, **fields: events.append((kind, fields)),
    )  # fmt: skip
    configuration = SimpleNamespace(patch_size=patch, spacing=(4.0, 0.5, 0.25)[-len(patch) :])
    trainer = SimpleNamespace(
        settings=settings, label_manager=LabelManager(labels, order), configuration_manager=configuration,
        _module=Echo(), device=torch.device("cpu"), is_cascaded=is_cascaded,
    )  # fmt: skip
    return trainer, events


def written(trainer: Any, events: list[tuple[str, dict[str, Any]]], dataset: Any) -> tuple[Any, dict[str, Any]]:
    """The picture after the first epoch and its event."""
    SliceWriter(trainer, dataset).write(0)
    ((kind, fields),) = events
    assert kind == "slice_written", fields
    with np.load(trainer.settings.run.slices / fields["file"]) as file:
        return dict(file), fields


def squares(*labels: int) -> Any:
    """A reference of 1 x 6 x 20 x 24 voxels: squares of the labels beside each other in slices 2 and 3."""
    reference = np.zeros((1, 6, 20, 24), np.int16)
    for number, label in enumerate(labels):
        reference[0, 2:4, 5:15, 2 + 7 * number : 8 + 7 * number] = label
    return reference


def locations(reference: Any, *keys: Any) -> dict[str, Any]:
    """Return voxels (n, 4) of every label or region as nnU-Net samples them at preprocessing."""
    return {"class_locations": {key: np.argwhere(np.isin(reference, key)) for key in keys}}


class OneCase:
    """A dataset of one case; nnU-Net's have arrays on disk, which are read by slices too."""

    identifiers = ("only",)

    def __init__(self, image: Any, reference: Any, properties: dict[str, Any], previous: Any = None) -> None:
        self._case = image, reference, previous, properties

    def load_case(self, _: str) -> Any:
        return self._case


PLAIN = {"background": 0, "organ": 1, "lesion": 2}


@pytest.mark.parametrize("shift", [(0, 0), (0, 5)])
def test_a_cascades_network_sees_the_stage_before(tmp_path: Path, shift: tuple[int, int]) -> None:
    reference = squares(1, 2)
    before = np.roll(reference[0], shift, axis=(1, 2))
    source, first = tmp_path / "cases", tmp_path / "first"
    for folder in (source, first):
        folder.mkdir()
    blocks = dict.fromkeys(("chunks", "blocks"), (1, 6, 20, 24))
    # The image's own channel counts as the background, and wins where the stage before has neither class.
    image = np.full(reference.shape, 0.5, np.float32)
    nnUNetDatasetBlosc2.save_case(image, reference, locations(reference, 1, 2), str(source / "only"), **blocks)
    # As nnU-Net's first stage writes it: without a channel.
    nnUNetDatasetBlosc2.save_seg(before.astype(np.uint8), str(first / "only"))
    dataset = nnUNetDatasetBlosc2(str(source), ["only"], str(first))
    trainer, events = trainer_of(tmp_path / "run", PLAIN, (4, 16, 32), is_cascaded=True)
    content, told_of = written(trainer, events, dataset)
    assert np.array_equal(content["reference"][:, 4:28], reference[0, 2, 1:17])
    # The patch is wider than the image: beyond it the stage before has nothing.
    assert np.array_equal(content["prediction"][:, 4:28], before[2, 1:17])
    assert not content["prediction"][:, :4].any() and not content["prediction"][:, 28:].any()
    assert (told_of["slice_dice"] == [1.0, 1.0]) is (shift == (0, 0))


def test_a_2d_network_gets_the_slice(tmp_path: Path) -> None:
    reference = squares(1, 2)
    image = np.stack([reference[0] == label for label in (0, 1, 2)]).astype(np.float32)
    trainer, events = trainer_of(tmp_path, PLAIN, (16, 32))
    content, told_of = written(trainer, events, OneCase(image, reference, locations(reference, 1, 2)))
    assert trainer._module.shapes == [(1, 3, 16, 32)]
    assert int(content["index"]) == 2 and told_of["slice_dice"] == [1.0, 1.0]
    assert content["spacing"].tolist() == [0.5, 0.25]
    expected = np.pad(reference[0, 2, 1:17], ((0, 0), (4, 4)))
    for name in ("reference", "prediction"):
        assert np.array_equal(content[name], expected), name


def test_a_2d_cascade_sees_its_slice_of_the_stage_before(tmp_path: Path) -> None:
    reference = squares(1, 2)
    image = (reference == 0).astype(np.float32)
    trainer, events = trainer_of(tmp_path, PLAIN, (16, 16), is_cascaded=True)
    dataset = OneCase(image, reference, locations(reference, 1, 2), reference[0])
    content, told_of = written(trainer, events, dataset)
    assert np.array_equal(content["prediction"], content["reference"])
    assert told_of["slice_dice"] == [1.0, 1.0]


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


@pytest.mark.parametrize("patch", [(4, 16, 16), (16, 16)])
def test_regions_are_drawn_as_labels_and_told_as_regions(tmp_path: Path, patch: tuple[int, ...]) -> None:
    reference = squares(1, 2, 3)
    regions = ((1, 2, 3), (2, 3), 3)
    # The network finds the core where the whole is: all that is 1 becomes 2.
    image = np.stack([np.isin(reference[0], of) for of in ((1, 2, 3), (1, 2, 3), 3)]) - np.float32(0.5)
    trainer, events = trainer_of(tmp_path, REGIONS, patch, order=(1, 2, 3))
    content, told_of = written(trainer, events, OneCase(image, reference, locations(reference, *regions)))
    seen = content["reference"]
    assert set(np.unique(seen)) == {0, 1, 2, 3}
    assert np.array_equal(content["prediction"], np.where(seen == 1, 2, seen))
    core, all_of_it = np.isin(seen, (2, 3)).sum(), (seen > 0).sum()
    assert told_of["slice_dice"] == pytest.approx([1.0, 2 * core / (core + all_of_it), 1.0])


@pytest.mark.parametrize("patch", [(4, 16, 24), (16, 24)])
@pytest.mark.parametrize(
    ("labels", "order", "keys"),
    [
        ({**PLAIN, "ignore": 3}, None, (1, 2)),
        ({"background": 0, "both": [1, 2], "lesion": 2, "ignore": 3}, (1, 2), ((1, 2), 2)),
    ],
    ids=["labels", "regions"],
)
def test_what_is_not_annotated_is_left_out(
    tmp_path: Path, labels: dict[str, Any], order: Any, keys: Any, patch: tuple[int, ...]
) -> None:
    reference = squares(1, 2, 3)
    properties = locations(reference, *keys)
    # Of all that is annotated nnU-Net has a list too; most of it is in other slices.
    properties["class_locations"][(-1, 0, 1, 2)] = np.argwhere(reference < 3)
    # The network says lesion wherever there is anything, also in what is not annotated.
    there, organ = reference[0] > 0, reference[0] == 1
    scores = [there, there & ~organ] if order else [~there, organ, there & ~organ]
    image = np.stack(scores) - np.float32(0.5)
    trainer, events = trainer_of(tmp_path, labels, patch, order=order)
    content, told_of = written(trainer, events, OneCase(image, reference, properties))
    assert int(content["index"]) == 2
    assert np.array_equal(content["prediction"], content["reference"])
    assert set(np.unique(content["prediction"])) == {0, 1, 2}
    assert told_of["slice_dice"] == [1.0, 1.0]
