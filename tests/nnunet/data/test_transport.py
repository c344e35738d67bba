"""A batch arrives from a worker as it left, by the pipe or through shared memory."""

from __future__ import annotations

import gc
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppgs.nnunet.data.augmentation import Crops, Moved
from ppgs.nnunet.data.transport import Travelling


def sent(batch: dict[str, Any]) -> dict[str, Any]:
    content = bytes(ForkingPickler.dumps(Travelling(batch)))
    arrived: dict[str, Any] = pickle.loads(content)
    arrived["bytes"] = len(content)
    return arrived


@pytest.mark.parametrize(("side", "piped"), [(8, True), (120, False)])
def test_a_batch_arrives_as_it_left(side: int, piped: bool) -> None:
    data = torch.randn(2, 1, side, side, side)
    targets = [torch.ones(2, 1, side, side, side, dtype=torch.int16), torch.zeros(2, 1, 4, 4, 4)]
    batch = sent({"data": data, "target": targets, "keys": ["a", "b"], "key": (1, 2)})
    assert (batch["keys"], batch["key"]) == (["a", "b"], (1, 2))
    for ours, theirs in zip([batch["data"], *batch["target"]], [data, *targets], strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        ours += 1
    assert (batch["bytes"] > data.nbytes) == piped


def crops(side: int, moved: int) -> Crops:
    def part(n: int) -> Moved:
        return Moved(
            rows=np.arange(1) + n,
            image=torch.randn(1, 2, side, side, side),
            labels=torch.ones(1, 1, side, side, side, dtype=torch.int16),
            values=(0, 1),
            matrices=np.eye(3)[None],
            offsets=np.zeros((1, 3)),
        )

    return Crops(
        image=torch.randn(9, 2, 8, 8, 8),
        labels=torch.ones(9, 1, 8, 8, 8, dtype=torch.int16),
        moved=[part(n) for n in range(moved)],
        uniforms=np.random.default_rng(0).random((9, 30)),
    )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="file descriptors are counted in /proc")
@pytest.mark.parametrize(("side", "piped"), [(12, True), (96, False)])
def test_crops_take_no_file_descriptors_where_they_are_small(side: int, piped: bool) -> None:
    made = crops(side, moved=4)
    sent({"data": torch.ones(9 << 20, dtype=torch.uint8)})
    gc.collect()
    before = descriptors()
    arrived = sent({"crops": made, "keys": ["a"], "key": (1, 2)})["crops"]
    # One at least for each of its ten tensors else.
    assert (descriptors() - before >= 10) != piped
    assert torch.equal(arrived.image, made.image) and torch.equal(arrived.labels, made.labels)
    assert isinstance(arrived.uniforms, np.ndarray) and np.array_equal(arrived.uniforms, made.uniforms)
    for ours, theirs in zip(arrived.moved, made.moved, strict=True):
        assert torch.equal(ours.image, theirs.image) and ours.image.dtype == theirs.image.dtype
        assert torch.equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.rows, theirs.rows) and ours.values == theirs.values
