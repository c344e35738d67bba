"""Transfer of one dataset's plans to another, as in nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets

from ppgs.nnunet.preparation.conversion import environment
from ppgs.plans import read_json
from ppgs.tasks import Roots


def transferred_plans(plans: dict[str, Any], dataset: str, name: str, raw: Path) -> dict[str, Any]:
    """Return another dataset's `plans` for `dataset`, which is in the folder `raw`, under a new `name`.

    Files are made beside `raw`, a temporary folder.
    """
    source, old_name = plans["dataset_name"], plans["plans_name"]
    roots = Roots(raw, raw.with_name("preprocessed"), raw.with_name("results"))
    for one in (source, dataset):
        (roots.preprocessed / one).mkdir(parents=True, exist_ok=True)
    (roots.preprocessed / source / f"{old_name}.json").write_text(json.dumps(plans), encoding="utf-8")
    with environment(roots):
        move_plans_between_datasets(source, dataset, old_name, name)
    return read_json(roots.preprocessed / dataset / f"{name}.json")
