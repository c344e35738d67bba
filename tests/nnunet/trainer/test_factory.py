"""Construction of a run's trainer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ppgs.errors import PlansError
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.trainer.factory import Job, _warn_of_lengths, make_trainer
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.schedule import PlanFacts, Recipe, Schedule, resolve
from ppgs.schedule.replan import in_parts
from ppgs.tasks import DEMO_DATASET, Roots
from tests.helpers.facts import HIPPOCAMPUS as FACTS
from tests.helpers.made_runs import made

SCHEDULE = resolve(Recipe(epochs=300, iterations_per_epoch=250), FACTS)


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


@pytest.mark.parametrize(
    ("own", "asked", "schedule", "expected"),
    [
        # nnU-Net's own numbers are no wish of the class.
        ({}, {}, SCHEDULE, []),
        ({"epochs": 300}, {}, SCHEDULE, []),
        ({"epochs": 50}, {}, SCHEDULE, ["Lab sets 50 epochs; the schedule's 300 are used (change with --epochs)"]),
        ({"epochs": 50}, {"epochs": 300}, SCHEDULE, []),
        ({"epochs": 50}, {}, in_parts(SCHEDULE), []),
        (
            {"iterations": 500},
            {},
            SCHEDULE,
            ["Lab sets 500 iterations; the schedule's 250 are used (change with --iterations)"],
        ),
    ],
)
def test_a_length_that_a_class_sets_is_never_left_out_silently(
    own: dict[str, int], asked: dict[str, int], schedule: Schedule, expected: list[str]
) -> None:
    trainer: Any = SimpleNamespace(
        num_epochs=own.get("epochs", 1000), num_iterations_per_epoch=own.get("iterations", 250)
    )
    request = SimpleNamespace(trainer="Lab", epochs=asked.get("epochs"), iterations=asked.get("iterations"))
    job: Any = SimpleNamespace(manifest=SimpleNamespace(request=request), schedule=schedule)
    said: list[str] = []
    _warn_of_lengths(trainer, job, lambda kind, message: said.append(message))
    assert said == expected
