"""One of several processes that train the demo together: arguments: SCENARIOS.json OUT.

Every scenario is a schedule with `batch_dice`, trained from the start; the first process writes weights, log and the
collective operations of every iteration into OUT. Ranks run out of memory at a call of the network, have an unreadable
batch, or want to stop after an iteration, as the scenario says.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ppgs.errors import PpgsError, StorageFailed
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.host.environment import launched, prepare_environment
from ppgs.nnunet.trainer.factory import build_trainer
from ppgs.nnunet.trainer.settings import Settings
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Schedule
from ppgs.tasks import DEMO_DATASET, Roots
from tests.nnunet.distributed.messages_of_a_rank import Counted


def build(number: int, scenario: dict[str, Any], roots: Roots, ranks: Any) -> PpgsTrainer:
    from ppgs.nnunet.host.energy import EnergyMeter

    schedule = Schedule.model_validate(scenario["schedule"])
    folder = roots.preprocessed / DEMO_DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["batch_dice"] = scenario["batch_dice"]
    trainer = build_trainer(
        label=f"Ranks{ranks.count}Scenario{number}",
        plans=plans,
        configuration="3d_fullres",
        fold=0,
        dataset_json=json.loads((folder / "dataset.json").read_text()),
        device=torch.device("cpu"),
        continuing=False,
    )
    run = RunFolder(Path(trainer.output_folder))
    stops = scenario.get("stops", {}).get(str(ranks.rank))
    trainer.attach(
        Settings(
            run=run,
            schedule=schedule,
            seed=0,
            workers=0,
            emit=lambda *_, **__: None,
            stop_requested=lambda: "SIGTERM" if stops is not None and len(trainer._losses) >= stops else None,
            energy=EnergyMeter(run.path, enabled=False),
            batchwise=scenario["batchwise"],
            ranks=ranks,
        )
    )
    trainer.initialize()
    out_of_memory = scenario.get("out_of_memory", {}).get(str(ranks.rank))
    if out_of_memory is not None:
        calls = 0

        def run_out(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == out_of_memory:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        trainer.network.register_forward_pre_hook(run_out)
    unreadable = scenario.get("unreadable", {}).get(str(ranks.rank))
    if unreadable is not None:
        make = trainer.get_dataloaders

        def spoiled() -> Any:
            loader, _ = make()
            # As a loader's process reports it.
            batches = [next(loader) for _ in range(unreadable)]
            loader._made.extendleft(
                [{"error": StorageFailed("a case cannot be read", "somewhere", "mount it").to_record()}, *batches[::-1]]
            )
            return loader, loader

        trainer.get_dataloaders = spoiled  # type: ignore[method-assign]
    return trainer


def trained(trainer: PpgsTrainer, ranks: Any) -> dict[str, Any]:
    """Train to the end, and return weights, log and collectives, or the error that stopped it."""
    step, collectives = trainer.train_step, []

    def train_step(batch: dict[str, Any]) -> dict[str, Any]:
        with Counted() as found:
            result = step(batch)
        collectives.append(found)
        return result

    trainer.train_step = train_step  # type: ignore[method-assign]
    # Made for the trainer that was built last.
    ranks.prepare(trainer._steps._parameters())
    try:
        trainer.run_training()
    except PpgsError as error:
        if ranks.rank:
            return {}
        content = load_checkpoint(trainer.settings.run.checkpoint_latest)
        state = trainer._module.state_dict()
        return {
            "error": type(error).__name__,
            "place": [content["current_epoch"], content["ppgs"]["iteration"]],
            "saved": all(torch.equal(value, state[name]) for name, value in content["network_weights"].items()),
        }
    return {
        "weights": trainer._module.state_dict(),
        "log": trainer.logger.get_checkpoint(),
        "collectives": collectives,
    }


def main() -> None:
    scenarios, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    from ppgs.nnunet.distributed.ranks import ProcessGroup, Ranks

    ranks = ProcessGroup(os.environ) if launched(os.environ) > 1 else Ranks()
    roots = Roots.choose(None, os.environ)
    results = roots.results if ranks.rank == 0 else roots.results / "others"
    prepare_environment(Roots(roots.raw, roots.preprocessed, results))
    torch.set_num_threads(1)
    trainers = [build(n, scenario, roots, ranks) for n, scenario in enumerate(scenarios)]
    ranks.connect(torch.device("cpu"))
    for number, trainer in enumerate(trainers):
        found = trained(trainer, ranks)
        if ranks.rank == 0:
            torch.save(found, out / f"{number}.pth")
    ranks.leave()
