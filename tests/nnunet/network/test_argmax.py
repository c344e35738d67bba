from __future__ import annotations

import torch
from torch import nn

from ppgs.nnunet.network.argmax import quick_argmax

CPU = torch.device("cpu")


class Ends(nn.Module):
    """A network that returns its input, as deep supervision's list if requested."""

    def __init__(self, *, deep: bool) -> None:
        super().__init__()
        self.deep = deep

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        return [x, x[:, :, ::2]] if self.deep else x


def test_classes_are_those_of_argmax_ties_and_nan_included() -> None:
    logits = torch.randint(0, 3, (2, 4, 6, 5, 7)).float()
    logits[0, 1:3, 0] = torch.nan
    network = Ends(deep=False)
    for kind in (torch.float32, torch.bfloat16):
        with quick_argmax(network, CPU):
            found = network(logits.to(kind))
        # Else there would be nothing to test.
        assert type(found) is not torch.Tensor
        assert torch.equal(found.argmax(1), logits.to(kind).argmax(1))
        assert torch.equal(found.argmax(dim=1, keepdim=True), logits.to(kind).argmax(dim=1, keepdim=True))
        # Whatever else is asked of it gives plain tensors.
        assert type(found + 1) is torch.Tensor


def test_only_within_and_only_the_first_of_deep_supervisions_outputs() -> None:
    network = Ends(deep=True)
    logits = torch.randn(1, 3, 4, 4, 4)
    with quick_argmax(network, CPU):
        first, second = network(logits)
    assert type(first) is not torch.Tensor
    assert torch.equal(first.argmax(1), logits.argmax(1))
    assert type(second) is torch.Tensor
    assert all(type(output) is torch.Tensor for output in network(logits))
