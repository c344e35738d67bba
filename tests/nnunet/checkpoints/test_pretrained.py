"""Pretrained weights: read without running anything, matched as nnU-Net does, every mismatch listed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import nn

from ppgs.errors import BadInput
from ppgs.nnunet.checkpoints.pretrained import matching, read_pretrained

HEAD = "decoder.seg_layers.0.weight"


class Network(nn.Module):
    """Names as nnU-Net's U-Nets have them: the decoder holds the encoder again."""

    def __init__(self, channels: int = 1, classes: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(channels, 4, 3)
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        self.decoder.seg_layers = nn.ModuleList([nn.Conv3d(4, classes, 1)])


def stock(path: Path, network: nn.Module, **changes: Any) -> Path:
    """A checkpoint as nnU-Net writes it: its log holds NumPy's numbers."""
    content = {
        "network_weights": network.state_dict(),
        "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(1)]},
        "_best_ema": np.float64(0.5),
        "init_args": {"plans": {}, "configuration": "3d_fullres", "device": torch.device("cuda")},
    }
    torch.save(content | changes, path)
    return path


def test_everything_but_the_heads_is_taken_as_nnunet_does(tmp_path: Path) -> None:
    path = stock(tmp_path / "checkpoint_final.pth", Network(classes=5))
    ours, theirs = Network(), Network()
    theirs.load_state_dict(ours.state_dict())
    before = ours.state_dict()[HEAD].clone()
    ours.load_state_dict(matching(ours.state_dict(), read_pretrained(path, "given").weights))
    load_pretrained_weights(theirs, path)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    assert torch.equal(before, ours.state_dict()[HEAD])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrapped_networks_are_dropped(prefix: str, tmp_path: Path) -> None:
    weights = {prefix + name: value for name, value in Network().state_dict().items()}
    path = stock(tmp_path / "wrapped.pth", Network(), network_weights=weights)
    assert read_pretrained(path, "given").weights.keys() == Network().state_dict().keys()


def test_a_mismatch_lists_the_layers_with_both_shapes(tmp_path: Path) -> None:
    weights = {n: v for n, v in Network(channels=3).state_dict().items() if "bias" not in n}
    with pytest.raises(BadInput) as caught:
        matching(Network().state_dict(), weights)
    # Not again under the decoder's name.
    assert [problem.what for problem in caught.value.problems] == [
        "encoder.weight: 4x3x3x3x3 in the checkpoint, 4x1x3x3x3 in the network",
        "encoder.bias: missing in the checkpoint, 4 in the network",
    ]


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_checkpoint_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "was-here"
    path = stock(tmp_path / "evil.pth", Network(), logging=Malicious(target))
    with pytest.raises(BadInput, match="holds code, which was not run"):
        read_pretrained(path, "given")
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        read_pretrained(path, "given")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(BadInput, match="network_weights"):
        read_pretrained(path, "given")
