"""Logits in memory or a file are nnU-Net's own, and what is needed and where it goes is known before the work."""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from ppgs.errors import Problem
from ppgs.nnunet.inference import window
from ppgs.nnunet.inference.memory import Needs, Room, choose_place, needs_of
from ppgs.nnunet.inference.pipeline import Workers, by_the_minute, flow_of
from ppgs.nnunet.inference.window import Place, Predictor, Storage

HEADS = 4
GIB = 1 << 30


def prepared(kind: type[nnUNetPredictor], patch: list[int], folds: int) -> Any:
    torch.manual_seed(0)
    convolution = nn.Conv3d if len(patch) == 3 else nn.Conv2d
    network = convolution(2, HEADS, 3, padding=1)
    weights = [{k: torch.randn_like(v) for k, v in network.state_dict().items()} for _ in range(folds)]
    predictor = kind(device=torch.device("cpu"), allow_tqdm=False)
    labels = SimpleNamespace(num_segmentation_heads=HEADS)
    plans, setup = SimpleNamespace(get_label_manager=lambda _: labels), SimpleNamespace(patch_size=patch)
    predictor.manual_initialization(network, plans, setup, weights, {}, "", tuple(range(len(patch))))
    return predictor


@pytest.mark.parametrize("place", ["device", "memory", "file"])
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize(
    ("patch", "shape"), [([8, 8, 8], (2, 12, 19, 8)), ([8, 12, 8], (2, 5, 19, 7)), ([8, 8], (2, 3, 5, 17))]
)
def test_equal_to_nnunets_sliding_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: list[int], shape: Any, folds: int, place: Place
) -> None:
    # Pages are let go after every tile.
    monkeypatch.setattr(window, "_KEPT_BYTES", 1)
    data = torch.randn(shape)
    expected = prepared(nnUNetPredictor, patch, folds).predict_logits_from_preprocessed_data(data)
    counts: list[tuple[int, int]] = []
    stored, storage = prepared(Predictor, patch, folds).logits(data, place, tmp_path, lambda *at: counts.append(at))
    assert counts == [(done + 1, len(counts)) for done in range(len(counts))] and len(counts) % folds == 0 < len(counts)
    assert len(stored) == HEADS and stored.shape == expected.shape
    assert np.array_equal(stored[:], expected.numpy())
    for number in range(HEADS):
        assert np.array_equal(stored[number : number + 1], expected[number : number + 1].numpy())
    assert not list(tmp_path.iterdir()), "the file has a name on disk"
    storage.close()


def test_nothing_of_an_image_stays_open(tmp_path: Path) -> None:
    predictor, data = prepared(Predictor, [8, 8, 8], 2), torch.randn(2, 12, 19, 8)
    predictor.logits(data, "memory", tmp_path)[1].close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for place in ("memory", "file"):
        predictor.logits(data, place, tmp_path)[1].close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_fold_for_which_the_device_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    data = torch.randn(2, 12, 19, 8)
    expected = prepared(nnUNetPredictor, [8, 8, 8], 3).predict_logits_from_preprocessed_data(data)
    predictor, own = prepared(Predictor, [8, 8, 8], 3), nnUNetPredictor._internal_maybe_mirror_and_predict
    folds: list[float] = []

    def short_of_memory(self: Any, x: torch.Tensor) -> torch.Tensor:
        bias = float(self.network.bias[0])
        folds.extend([bias] if bias not in folds else [])
        if folds.index(bias) == failing and self.fails:
            self.fails = False
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self, x)

    predictor.fails = True
    monkeypatch.setattr(nnUNetPredictor, "_internal_maybe_mirror_and_predict", short_of_memory)
    stored, storage = predictor.logits(data, "device", tmp_path)
    assert not predictor.fails and np.array_equal(stored[:], expected.numpy())
    storage.close()


@pytest.mark.parametrize("place", ["memory", "file"])
def test_an_ensemble_keeps_two_logits_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    made: list[Storage] = []
    kept: list[int] = []
    own = Storage.zeros

    def zeros(self: Storage, shape: tuple[int, ...]) -> torch.Tensor:
        made.append(self)
        kept.append(sum(storage._file >= 0 for storage in made[:-1]) + 1)
        return own(self, shape)

    monkeypatch.setattr(Storage, "zeros", zeros)
    prepared(Predictor, [8, 8, 8], 5).logits(torch.randn(2, 12, 19, 8), place, tmp_path)[1].close()
    assert kept == [1, 2, 2, 2, 2]


def test_infinite_logits_are_refused_as_nnunet_does(tmp_path: Path) -> None:
    predictor = prepared(Predictor, [8, 8, 8], 1)
    predictor.list_of_parameters[0]["bias"].fill_(float("inf"))
    with pytest.raises(RuntimeError, match="Encountered inf"):
        predictor.logits(torch.randn(2, 12, 19, 8), "file", tmp_path)


def test_whole_array_operations_go_class_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    own = torch.isinf
    monkeypatch.setattr(torch, "isinf", own)

    class Watch(window._Placed):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = super().__torch_function__(function, types, args, kwargs)
            if function is own:
                sizes.append(result.numel())
            return result

    monkeypatch.setattr(window, "_Placed", Watch)
    prepared(Predictor, [8, 8, 8], 1).logits(torch.randn(2, 12, 19, 8), "memory", tmp_path)[1].close()
    assert sizes == [HEADS]


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="pages of a file are not let go here")
def test_pages_of_a_file_that_are_let_go_are_not_lost(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    logits = storage.zeros((2, 64, 64, 64))
    logits[1] = 3
    storage.let_go()
    assert float(logits[1].min()) == 3 and float(logits[0].max()) == 0


def test_a_disk_without_room_is_an_error_not_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Storage(tmp_path).zeros((2, 8, 8, 8))


NEEDS = Needs(preparing=4 * GIB, data=GIB, logits=8 * GIB, exporting=2 * GIB, abreast=GIB)


@pytest.mark.parametrize(
    ("device", "free", "disk", "place"),
    [
        (None, 32, 100, "memory"),
        (None, 8, 100, "file"),
        (24, 32, 100, "device"),
        (8, 32, 100, "memory"),
        (24, 8, 100, "file"),
        (None, 8, 6, None),
        (24, 5, 100, None),
    ],
)
def test_where_logits_go(device: int | None, free: int, disk: int, place: Place | None) -> None:
    room = Room(None if device is None else device * GIB, free * GIB, disk * GIB)
    chosen = choose_place(NEEDS, room, "image.nii.gz")
    if place is None:
        assert isinstance(chosen, Problem) and chosen.where == "image.nii.gz" and chosen.remedy
    else:
        assert chosen == place


def test_what_an_image_needs() -> None:
    plans = SimpleNamespace(transpose_forward=[2, 0, 1])
    setup = SimpleNamespace(spacing=[1.5, 1.5, 1.5], patch_size=[64, 64, 500])
    few, many = (
        needs_of((400, 512, 512), (1.5, 0.8, 0.8), plans, setup, heads=h, channels=1, folds=5, together=False)
        for h in (3, 117)
    )
    assert many.logits == 2 * 2 * 117 * 273 * 400 * 500
    assert many.exporting == few.exporting
    flat = SimpleNamespace(spacing=[1.5, 1.5], patch_size=[64, 64])
    plans = SimpleNamespace(transpose_forward=[0, 1, 2])
    slices = needs_of((10, 100, 100), (5, 3, 3), plans, flat, heads=2, channels=1, folds=1, together=False)
    assert slices.logits == 2 * 2 * 10 * 200 * 200


def test_images_side_by_side_as_memory_allows() -> None:
    for memory_gib, asked, expected in (
        (1000, Workers(), (4, 4, 4, 4)),
        (1000, Workers(2, 1), (2, 1, 2, 8)),
        (30, Workers(), (1, 1, 1, 7)),
        # The logits are in a file then.
        (12, Workers(), (1, 1, 0, 8)),
        (6, Workers(), (1, 1, 0, 2)),
    ):
        flow = flow_of(asked, NEEDS, memory_gib * GIB, cpus=16)
        assert (flow.preprocess, flow.export, flow.ahead, flow.abreast) == expected, memory_gib
    assert flow_of(Workers(), NEEDS, 1000 * GIB, cpus=2).abreast == 2
    assert flow_of(Workers(), replace(NEEDS, abreast=0), 1000 * GIB, cpus=16).abreast == 1
    assert flow_of(Workers(), None, 0, cpus=2).preprocess == 1


def test_windows_of_a_large_image_are_counted_by_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [1000.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counted = by_the_minute("a", said.append)
    for done in range(1, 11):
        now[0] += 30
        counted(done, 10)
        if done == 4:
            assert said == ["a: 2/10 windows, 4m00s left", "a: 4/10 windows, 3m00s left"]
