"""Construction of a run's trainer."""

from __future__ import annotations

import json

import pytest

from ppgs.errors import PlansError
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.trainer.factory import Job, make_trainer
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.schedule import PlanFacts, Recipe, resolve
from ppgs.tasks import DEMO_DATASET, Roots
from tests.helpers.made_runs import made


def test_a_trainer_that_would_write_into_another_runs_folder_is_refused(
    demo_roots: Roots, demo_facts: PlanFacts
) -> None:
    run = RunFolder.place(demo_roots.results, DEMO_DATASET, "guard", "bigPlans", "3d_fullres", 0)
    made(run, "guard", "preparing", dataset=DEMO_DATASET, plans="bigPlans", trainer="nnUNetTrainerPPGS_guard")
    prepared = demo_roots.preprocessed / DEMO_DATASET
    job = Job(
        manifest=read_manifest(run),
        schedule=resolve(Recipe(epochs=20, iterations_per_epoch=1), demo_facts),
        plans=json.loads((prepared / "nnUNetPlans.json").read_text()),
        dataset=json.loads((prepared / "dataset.json").read_text()),
        device="cpu",
        first_stage=None,
        predicted=[],
        trained=False,
        continuing=False,
    )
    with pytest.raises(PlansError, match="__nnUNetPlans__3d_fullres"):
        make_trainer(
            job,
            run,
            Ranks(),
            emit=lambda *_, **__: None,
            stop_requested=lambda: None,
            energy=EnergyMeter(run.path, enabled=False),
        )
