from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.nnunet.host.environment import prepare_environment
from ppgs.nnunet.trainer.factory import build_trainer
from ppgs.nnunet.trainer.settings import Settings
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.plans import load_plans
from ppgs.runs.folder import RunFolder
from ppgs.schedule import PlanFacts, Recipe, Schedule, resolve
from ppgs.tasks import DEMO_DATASET, Roots
from ppgs.trainers import DEFAULT

Build = Callable[..., PpgsTrainer]


@pytest.fixture
def demo_roots(demo_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Roots:
    for name, value in demo_environ.items():
        monkeypatch.setenv(name, value)
    roots = Roots.choose(None, demo_environ)
    prepare_environment(roots)
    return roots


@pytest.fixture
def demo_facts(demo_roots: Roots) -> PlanFacts:
    plans = load_plans(demo_roots.preprocessed / DEMO_DATASET / "nnUNetPlans.json")
    return PlanFacts.of(plans, plans.configuration("3d_fullres"))


@pytest.fixture
def build(demo_roots: Roots, demo_facts: PlanFacts) -> Iterator[Build]:
    """Makes initialised trainers of the demo on the CPU; `edit` may change the plans and the dataset's description."""
    made: list[PpgsTrainer] = []

    def make(
        schedule: Schedule | Recipe,
        *,
        seed: int = 0,
        workers: int = 0,
        name: str = DEFAULT,
        configuration: str = "3d_fullres",
        edit: Callable[[dict[str, Any], dict[str, Any]], None] = lambda *_: None,
        **changes: Any,
    ) -> PpgsTrainer:
        folder = demo_roots.preprocessed / DEMO_DATASET
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        dataset = json.loads((folder / "dataset.json").read_text())
        edit(plans, dataset)
        explicit = resolve(schedule, demo_facts) if isinstance(schedule, Recipe) else schedule
        label = f"T{len(made)}"
        trainer = build_trainer(
            label=label,
            trainer=name,
            plans=plans,
            configuration=configuration,
            fold=0,
            dataset_json=dataset,
            device=torch.device("cpu"),
            continuing=False,
        )
        settings: dict[str, Any] = {
            "run": RunFolder(Path(trainer.output_folder)),
            "schedule": explicit,
            "seed": seed,
            "workers": workers,
            "emit": lambda kind, **fields: None,
            "stop_requested": lambda: None,
            "energy": EnergyMeter(Path(trainer.output_folder), enabled=False),
        }
        trainer.attach(Settings(**{**settings, **changes}))
        trainer.initialize()
        made.append(trainer)
        return trainer

    yield make
    # The last one first: each gives back the signal handlers that it found.
    for trainer in reversed(made):
        trainer.close()
