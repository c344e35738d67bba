"""Train every trainer class that nnU-Net ships for one iteration of the demo, and write the table of its docs page.

    python benchmarks/trainers.py ROOT [--only NAME ...]

ROOT is made where it is missing, with the demo prepared in it. About six minutes on two cores. The package
`adan-pytorch` must be there for the five trainers that need it, and a torchvision that fits torch for those beside
Primus.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ppgs.errors import BadInput, PpgsError
from ppgs.imports import BrokenInstallation
from ppgs.tasks import DEMO_DATASET, Roots
from ppgs.trainers import DEFAULT, REFUSED, Trainers

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "trainers.md"
HEAD = """# Trainers

`ppgs train TASK --trainer NAME` puts the curriculum on top of an nnU-Net trainer class: one that ships with nnU-Net, or
one of your own in a folder that the environment variable `nnUNet_extTrainer` names. Its loss, optimiser, learning-rate
schedule, augmentation, network, deep supervision and oversampling stay what they are. A class that sets its own number
of epochs gives the default of `--epochs`, unless the schedule's file says how many; with fewer epochs than stages
choose another schedule, such as `constant`. One that sets its own share of foreground samples keeps it in every stage.
A length that the source does not show as a number, and another number of iterations, are reported when the training
begins.

```bash
export nnUNet_extTrainer=/lab/trainers
ppgs train Task09_Spleen --trainer nnUNetTrainerLab
```

`predict` needs the same variable where the class builds a network of its own, and for all runs of classes of your own
that were trained before ppgs recorded that.

A class that replaces something which the curriculum must own is refused when the command starts:

{reasons}

A class that the installed nnU-Net cannot use is refused too: one whose constructor does not take nnU-Net's parameters
(until 2.5 there was `unpack_dataset`), or whose network or augmentation is built by a method that is not static.

A network that the class builds itself is tried on the patches of all stages before the training. Where it needs larger
patches or coarser steps than the plan, give `--start-patch` or `--schedule constant`.

`--gpus` does not work with a trainer that has its own loss, or with batch norm: ppgs can combine the parts of a batch
only for nnU-Net's losses and for normalisation within a sample.

`on_validation_epoch_end` is called after epochs that are validated. In stages of small patches not all of them may be:
see [`validation`](../reference/schedule.md#validation), whose `every-epoch` restores nnU-Net's way.

`python benchmarks/trainers.py ROOT` wrote this table: every class that nnU-Net {version} ships, trained for one
iteration of the demo's first and last stage.

| trainer | epochs | under the curriculum |
| --- | --- | --- |
"""


def outcome(name: str, roots: Roots) -> str:
    """Train one iteration; what the table says of it."""
    import torch

    from ppgs.nnunet.host.energy import EnergyMeter
    from ppgs.nnunet.trainer.factory import build_trainer
    from ppgs.nnunet.trainer.settings import Settings
    from ppgs.plans import load_plans
    from ppgs.runs.folder import RunFolder
    from ppgs.schedule import PlanFacts, Recipe, resolve

    folder = roots.preprocessed / DEMO_DATASET
    plans = load_plans(folder / "nnUNetPlans.json")
    facts = PlanFacts.of(plans, plans.configuration("3d_fullres"))
    # The first and the last stage of the curriculum.
    whole = resolve(Recipe(epochs=20, iterations_per_epoch=1), facts)
    ends = tuple(stage.model_copy(update={"epochs": 1}) for stage in (whole.stages[0], whole.stages[-1]))
    said: list[str] = []

    def emit(kind: str, **fields: Any) -> None:
        if kind == "warning":
            said.append(fields["message"])

    try:
        trainer = build_trainer(
            label=f"Bench_{name}",
            trainer=name,
            plans=json.loads((folder / "nnUNetPlans.json").read_text()),
            configuration="3d_fullres",
            fold=0,
            dataset_json=json.loads((folder / "dataset.json").read_text()),
            device=torch.device("cpu"),
            continuing=False,
        )
        run = RunFolder(Path(trainer.output_folder))
        energy = EnergyMeter(run.path, enabled=False)
        trainer.attach(Settings(run, whole.model_copy(update={"stages": ends}), 0, 0, emit, lambda: None, energy))
        trainer.initialize()
        trainer.run_training()
        trainer.close()
        shutil.rmtree(run.model, ignore_errors=True)
    except BrokenInstallation as error:
        return f"needs more: {error}"
    except PpgsError as error:
        return f"refused: {error}"
    except (ImportError, RuntimeError) as error:
        return f"needs more: {str(error).splitlines()[0]}"
    works = "works, augmented sample by sample as in nnU-Net" if any("sample by sample" in s for s in said) else "works"
    return f"{works} (with the package `adan-pytorch`)" if "Adan" in name else works


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    roots = Roots.under(options.root)
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots)
    if not (roots.preprocessed / DEMO_DATASET / "nnUNetPlans.json").is_file():
        from ppgs.cli.prepare import make

        make("demo", roots, "nnUNetPlans", "3d_fullres")
    import importlib.metadata

    trainers, rows = Trainers.of({}), []
    for name in sorted(trainers.classes, key=str.lower):
        if name == DEFAULT or (options.only and name not in options.only):
            continue
        started = time.perf_counter()
        try:
            trainers.check(name)
            found = outcome(name, roots)
        except BadInput as error:
            found = f"refused: {error.problems[0].where.rpartition(': ')[2]} - {str(error).partition(': ')[2]}"
        rows.append(f"| `{name}` | {trainers.epochs(name) or 1000} | {found} |")
        sys.stderr.write(f"{rows[-1]}  {time.perf_counter() - started:.1f} s\n")
    if not options.only:
        reasons = "\n".join(f"- `{method}`: {reason}" for method, reason in REFUSED.items())
        version = importlib.metadata.version("nnunetv2")
        PAGE.write_text(HEAD.format(reasons=reasons, version=version) + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
