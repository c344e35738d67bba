"""Requests that `train` refuses before data are converted, planned or preprocessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ppgs.commands.prepare import check_download, prepare
from ppgs.commands.train.plan import plan_run
from ppgs.errors import BadInput, PlansError
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots
from tests.helpers.datasets import dataset, decathlon, pictures
from tests.helpers.facts import raw_plans

STAGES = """stages:
- {patch_size: [16, 16, 16], batch_size: 2, epochs: 4}
- {patch_size: [32, 32, 32], batch_size: 2, epochs: 4}
"""


def made_for(dataset: str, configuration: str) -> str:
    facts = "plans: nnUNetPlans, patch_size: [32, 32, 32], batch_size: 2, step: [8, 8, 8]"
    return f"made_for: {{dataset: {dataset}, configuration: {configuration}, {facts}}}\n{STAGES}"


@pytest.mark.parametrize(
    ("options", "schedule", "said"),
    [
        ({"gpu_memory": "lots"}, None, "neither a size nor a known card"),
        ({"start_patch": "abc"}, None, "no patch size"),
        ({"start_patch": "16,16,16", "from_stage": 2}, None, "both say where to begin"),
        ({"mirroring": "sideways"}, None, "expected on, off"),
        ({"start_patch": "16,16,16", "schedule": "constant"}, None, "has no effect"),
        ({"epochs": 5}, STAGES, "explicit"),
        ({"from_stage": 3}, STAGES, "2 stages"),
        ({}, made_for("Dataset001_A", "3d_fullres"), "dataset is"),
        ({}, made_for("Dataset999_Demo", "2d"), "configuration is"),
    ],
)
def test_options_that_need_no_data(options: dict[str, object], schedule: str | None, said: str, tmp_path: Path) -> None:
    if schedule is not None:
        (tmp_path / "given.yaml").write_text(schedule)
        options = {**options, "schedule": str(tmp_path / "given.yaml")}
    root = tmp_path / "root"
    with pytest.raises(BadInput, match=said):
        plan_run(TrainingRequest.model_validate({"task": "demo", **options}), 0, Roots.under(root))
    assert not root.exists()


def test_a_schedule_made_for_the_plans_to_come(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    given.write_text(made_for("Dataset999_Demo", "3d_fullres"))
    plan_run(TrainingRequest(task="demo", schedule=str(given), from_stage=2), 0, Roots.under(tmp_path))


@pytest.mark.parametrize(
    ("make", "plans", "configuration", "remedy"),
    [
        (decathlon, "nnUNetPlannerResEncL", "3d_fullres", "--plans nnUNetResEncUNetLPlans"),
        (decathlon, "nnUNetResEncUNetL", "3d_fullres", "did you mean 'nnUNetResEncUNetLPlans'?"),
        (decathlon, "mine", "2d", "known: nnUNetPlans"),
        (decathlon, "nnUNetPlans", "3d_full_res", "did you mean '3d_fullres'?"),
        (partial(pictures, colours=False), "nnUNetPlans", "3d_fullres", "--configuration 2d"),
    ],
)
def test_plans_that_will_not_be_made(
    make: Callable[[Path], Path], plans: str, configuration: str, remedy: str, tmp_path: Path
) -> None:
    roots = Roots.under(tmp_path)
    task = make(tmp_path if make is decathlon else roots.raw)
    asked = TrainingRequest(task=str(task), plans=plans, configuration=configuration)
    refusing: list[Callable[[], object]] = [
        lambda: plan_run(asked, 0, roots),
        lambda: prepare(str(task), roots, plans, configuration, lambda *_: None),
    ]
    if make is decathlon:
        refusing.append(lambda: check_download(str(task), roots, plans, configuration))
    for refuse in refusing:
        with pytest.raises(PlansError) as refused:
            refuse()
        assert remedy in refused.value.problems[0].remedy
    assert not roots.preprocessed.exists()


def test_plans_that_are_there_may_have_any_name(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    dataset(roots.raw)
    with pytest.raises(PlansError, match="no plans 'mine'"):
        plan_run(TrainingRequest(task="42", plans="mine"), 0, roots)
    plans = raw_plans() | {"dataset_name": "Dataset042_Small", "plans_name": "mine"}
    plans["configurations"]["own"] = plans["configurations"]["3d_fullres"]
    (roots.preprocessed / "Dataset042_Small").mkdir(parents=True)
    (roots.preprocessed / "Dataset042_Small" / "mine.json").write_text(json.dumps(plans))
    plan_run(TrainingRequest(task="42", plans="mine", configuration="own"), 0, roots)
