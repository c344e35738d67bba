"""A batch arrives from a worker as it left, by the pipe or through shared memory."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch

from ppgs.nnunet.transport import Travelling


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
