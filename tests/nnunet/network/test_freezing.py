"""Frozen parameters: chosen by name, and not moved by any optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ppgs.errors import BadInput
from ppgs.nnunet.network.freezing import freeze
from ppgs.nnunet.network.optimiser import clip, fuse


@pytest.fixture
def network() -> nn.Module:
    made = nn.Sequential()
    made.encoder = nn.Conv2d(1, 2, 3)
    made.decoder = nn.Conv2d(2, 2, 3)
    return made


def test_frozen_parameters_do_not_move_under_weight_decay_and_momentum(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # nnU-Net makes its optimiser of all parameters.
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.99, weight_decay=0.1, nesterov=True)
    fuse(optimizer)
    assert freeze(network, ["encoder.*"]) == ["encoder.weight", "encoder.bias"]
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        network(torch.rand(1, 1, 8, 8)).square().mean().backward()
        clip([p for p in network.parameters() if p.requires_grad], wait=True)
        optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"decoder.weight", "decoder.bias"}


def test_a_pattern_that_matches_nothing_names_some_parameters(network: nn.Module) -> None:
    with pytest.raises(BadInput, match=r"no parameter matches 'encodr\.\*'") as caught:
        freeze(network, ["decoder.*", "encodr.*"])
    assert "encoder.weight" in caught.value.problems[0].remedy
    assert all(p.requires_grad for p in network.parameters())


def test_something_must_be_left_to_train(network: nn.Module) -> None:
    with pytest.raises(BadInput, match="nothing is left"):
        freeze(network, ["*"])
