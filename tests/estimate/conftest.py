"""A made-up network whose costs are known by hand: no torch is needed to reason about schedules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ppgs.estimate.cost import Costs
from ppgs.estimate.machine import Machine
from ppgs.estimate.memory import Surroundings
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Law, Patch, Recording, fit
from ppgs.estimate.tracer import Pass
from ppgs.schedule import PlanFacts

BYTES_PER_VOXEL = 1000
FLOPS_PER_VOXEL = 3000


def recording(patch: Patch, batch: int, scale: float = 1.0) -> Recording:
    volume = batch * math.prod(patch)
    return Recording(
        patch=patch,
        batch=batch,
        events=(("+", 4_000_000), ("+", int(BYTES_PER_VOXEL * scale) * volume)),
        flops=(int(FLOPS_PER_VOXEL * scale) * volume,),
    )


class FakeTracer:
    """Replaces `Tracer`: 4 MB of parameters, 1000 bytes and 3000 FLOPs a voxel, half with checkpointing."""

    parameters = 1_000_000

    def __init__(self, batch_dice: bool = False) -> None:
        self.network = Network(
            class_name="Made.Up",
            kwargs={"norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d"},
            imports=(),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
            channels=1,
            heads=3,
            batch_dice=batch_dice,
        )

    def law(self, name: Pass, patch: Patch, batch: int, *, checkpointing: bool = False) -> Law:
        scale = (0.5 if checkpointing else 1.0) * (1.0 if name == "train" else 1 / 3)
        return fit(recording((16, 16, 16), 2, scale), recording((24, 24, 24), 3, scale))

    def prepare(self, points: object, *, checkpointing: bool = False) -> None:
        pass


@pytest.fixture
def facts() -> PlanFacts:
    return PlanFacts(
        dataset="Dataset004_Hippocampus",
        plans="nnUNetPlans",
        configuration="3d_fullres",
        patch_size=(40, 56, 40),
        batch_size=9,
        step=(8, 8, 8),
    )


@pytest.fixture
def costs_with(facts: PlanFacts):  # type: ignore[no-untyped-def]
    """Costs of the made-up network under a limit in bytes."""

    def make(limit: int | None = None, *, batch_dice: bool = False, calibration: object = None) -> Costs:
        machine = Machine("a card", limit, Surroundings(context=0, workspace=0.0), calibration)  # type: ignore[arg-type]
        return Costs(FakeTracer(batch_dice), facts, machine, (36.0, 50.0, 35.0))  # type: ignore[arg-type]

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
