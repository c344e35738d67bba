"""Tracing of a network's passes on `meta` tensors: no data, no arithmetic, no GPU."""

from __future__ import annotations

from typing import Any

from ppgs.nnunet.probing.record import Recorder, collector_off
from ppgs.nnunet.probing.step import Step


def trace(request: dict[str, Any]) -> dict[str, Any]:
    """Record (`ppgs.estimate.scaling.Recording`) every pass at every point; return the number of parameters too.

    `request`: facts, mixed, checkpointing, passes (`train`, `validate`, `infer`) and points (patch, batch).
    """
    facts, mixed, checkpointing = request["facts"], request["mixed"], request["checkpointing"]
    recordings: dict[str, list[dict[str, Any]]] = {}
    parameters = 0
    for name in request["passes"]:
        for patch, batch in request["points"]:
            step = Step(facts, "meta", checkpointing=checkpointing, mixed=mixed)
            parameters = sum(p.numel() for p in step.network.parameters())
            recordings.setdefault(name, []).append(_record(step, name, patch, batch))
    return {"recordings": recordings, "parameters": parameters}


def _record(step: Step, name: str, patch: list[int], batch: int) -> dict[str, Any]:
    recorder = Recorder()
    take = getattr(step, name)
    with collector_off(), recorder:
        recorder.hold(step.network.parameters())
        recorder.hold(step.network.buffers())
        take(patch, batch)
        flops = len(recorder.flops)
        # The first step creates the momentum; the second is representative of all others.
        if name == "train":
            take(patch, batch)
    return {
        "patch": patch,
        "batch": batch,
        "events": recorder.events,
        "flops": recorder.flops[:flops],
    }
