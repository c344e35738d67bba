"""Trainers and networks as `ppgs train` builds them, without a run of their own around them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ppgs.tasks import Roots


def network_of(folder: Path) -> Any:
    """`ppgs.estimate.Network` and plan facts of the plans in a folder."""
    from ppgs.estimate.network import Network
    from ppgs.plans import load_dataset, load_plans
    from ppgs.schedule import PlanFacts

    plans = load_plans(folder / "nnUNetPlans.json")
    setup = plans.configuration("3d_fullres")
    return Network.of(setup, load_dataset(folder / "dataset.json")), PlanFacts.of(plans, setup)


def stages_of(folder: Path, mode: str) -> list[Any]:
    from ppgs.schedule import Recipe, resolve

    _, facts = network_of(folder)
    return list(resolve(Recipe.model_validate({"mode": mode}), facts).stages)


def schedule_of(folder: Path, stages: list[Any], *, iterations: int, validation: int = 1) -> Any:
    """A schedule of these stages, with few validation iterations."""
    from ppgs.schedule import Recipe, resolve

    _, facts = network_of(folder)
    base = resolve(Recipe(mode="constant", epochs=1, iterations_per_epoch=iterations), facts)
    # Made anew rather than copied: a copy would keep what the base has cached of its own stages.
    given = {"stages": tuple(stages), "validation": base.validation.model_copy(update={"iterations": validation})}
    return type(base).model_validate({name: getattr(base, name) for name in type(base).model_fields} | given)


def use_roots(root: Path) -> Roots:
    from ppgs.nnunet.host.environment import prepare_environment

    roots = Roots.under(root)
    roots.results.mkdir(parents=True, exist_ok=True)
    prepare_environment(roots)
    return roots


def make_trainer(
    roots: Roots,
    task: str,
    schedule: Any,
    device: str,
    *,
    label: str = "battery",
    workers: int = 0,
    bfloat16: bool | None = None,
    emit: Callable[..., object] = lambda kind, **fields: None,
    stop_requested: Callable[[], str | None] = lambda: None,
    **settings: Any,
) -> Any:
    """An initialised trainer of fold 0 in a results folder of its own name, which is emptied first."""
    import torch

    from ppgs.nnunet.host.devices import set_threads
    from ppgs.nnunet.host.energy import EnergyMeter
    from ppgs.nnunet.network.precision import has_bfloat16
    from ppgs.nnunet.trainer.factory import build_trainer
    from ppgs.nnunet.trainer.settings import Settings
    from ppgs.runs.folder import RunFolder

    chosen = torch.device(device)
    set_threads(chosen)
    prepared = roots.preprocessed / task
    shutil.rmtree(roots.results / task / f"{label}__nnUNetPlans__3d_fullres", ignore_errors=True)
    trainer = build_trainer(
        label=label,
        plans=json.loads((prepared / "nnUNetPlans.json").read_text()),
        configuration="3d_fullres",
        fold=0,
        dataset_json=json.loads((prepared / "dataset.json").read_text()),
        device=chosen,
        continuing=False,
    )
    folder = Path(trainer.output_folder)
    trainer.attach(
        Settings(
            run=RunFolder(folder),
            schedule=schedule,
            seed=0,
            workers=workers,
            emit=emit,
            stop_requested=stop_requested,
            energy=EnergyMeter(folder, enabled=False),
            bfloat16=has_bfloat16(chosen) if bfloat16 is None else bfloat16,
            **settings,
        )
    )
    trainer.initialize()
    return trainer


def begin(trainer: Any, epoch: int = 0) -> None:
    """Do what `run_training` does before the first iteration."""
    trainer.on_train_start()
    trainer.current_epoch = epoch
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()


def make_step(facts: dict[str, Any], device: str, *, bfloat16: bool | None = None) -> Any:
    """The step that trains (`ppgs.nnunet.probing`), in the precision asked for: None is the training's own choice."""
    from ppgs.nnunet.network import precision
    from ppgs.nnunet.probing.step import Step

    chosen = precision.has_bfloat16 if bfloat16 is None else lambda _: bfloat16
    with patch.object(precision, "has_bfloat16", chosen):
        return Step(facts, device, mixed=device == "cuda", trained=True)


@contextmanager
def environment(**values: str) -> Any:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
