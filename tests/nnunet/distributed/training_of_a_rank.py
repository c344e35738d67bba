"""One of several processes that train the demo together: `python training_of_a_rank.py SCENARIOS.json OUT`.

Every scenario is a schedule with `batch_dice`, trained from the start; the first process writes weights and log into
OUT.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ppgs.nnunet.host.environment import launched, prepare_environment
from ppgs.nnunet.trainer.factory import build_trainer
from ppgs.nnunet.trainer.settings import Settings
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Schedule
from ppgs.tasks import DEMO_DATASET, Roots


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
    trainer.attach(
        Settings(
            run=run,
            schedule=schedule,
            batch_size=schedule.stages[-1].batch_size,
            seed=0,
            workers=0,
            emit=lambda *_, **__: None,
            stop_requested=lambda: None,
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
    return trainer


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
        trainer.run_training()
        if ranks.rank == 0:
            found = {"weights": trainer._module.state_dict(), "log": trainer.logger.get_checkpoint()}
            torch.save(found, out / f"{number}.pth")
    ranks.leave()


if __name__ == "__main__":
    main()
