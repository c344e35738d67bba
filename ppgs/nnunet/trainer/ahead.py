"""On CUDA, batches are copied and augmented on a second stream, while the device trains on the batch before.

No batch is requested early for this. Where nothing waits for the device (`ppgs.nnunet.network.optimiser.LateUpdate`),
the host is one batch ahead of it: when the next batch arrives, backward pass and update of the one before are launched,
but not done. In float16 and with several ranks the host waits for each batch's loss, so that only the update is left to
work beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Batch = dict[str, Any]
Finish = Callable[[Batch, torch.device], Batch]


class SecondStream:
    """A stream beside the training's; `streams` is `torch.cuda` or a test's stand-in."""

    def __init__(self, device: torch.device, streams: Any = torch.cuda) -> None:
        self._device, self._streams = device, streams
        self._stream = streams.Stream(device)

    def __call__(self, batch: Batch, finish: Finish) -> Batch:
        """Return `finish(batch, device)` with its tensors on the device; the training's stream waits for them.

        If memory runs out, the batch can be finished again.
        """
        if "crops" not in batch and "data" not in batch:
            # It was augmented with the first of its group, or this rank has no samples of it.
            return finish(batch, self._device)
        with self._streams.stream(self._stream):
            batch = finish(batch, self._device)
            target = batch["target"]
            data, *targets = (
                tensor.to(self._device, non_blocking=True)
                for tensor in (batch["data"], *(target if isinstance(target, list) else [target]))
            )
            batch.update(data=data, target=targets if isinstance(target, list) else targets[0])
        training = self._streams.current_stream(self._device)
        training.wait_stream(self._stream)
        for tensor in (data, *targets):
            # The memory came from the second stream, which may use it again once the training's has read it.
            tensor.record_stream(training)
        return batch


def second_stream(device: torch.device) -> SecondStream | None:
    """Return the stream for a device that has streams, else None."""
    return SecondStream(device) if device.type == "cuda" else None
