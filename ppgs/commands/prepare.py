"""`prepare`: makes everything that training a task needs, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ppgs.commands.folders import check_folders
from ppgs.commands.pretrained import find_weights, plans_in
from ppgs.doctor.folder import check_task
from ppgs.errors import BadInput
from ppgs.plans import check_plannable, load_dataset, parse_plans, read_json
from ppgs.schedule import PlanFacts
from ppgs.tasks import Roots, Task, decathlon_to_come, resolve_task


@dataclass(frozen=True)
class Prepared:
    """A prepared task: its folder, the configuration's plan, and notes about changed data."""

    dataset: str
    raw: Path
    preprocessed: Path
    facts: PlanFacts
    notes: tuple[str, ...] = ()


def check_download(task: str, roots: Roots, plans: str, configuration: str, *, plans_from: str | None = None) -> None:
    """Raise `BadInput` or a subclass if a Decathlon task could be downloaded, but not prepared afterwards."""
    resolved = decathlon_to_come(task, roots)
    if resolved is not None:
        check_folders(roots, resolved)
        if plans_from is None:
            check_plans_to_come(resolved, roots, plans, configuration)


def check_plans_to_come(task: Task, roots: Roots, plans: str, configuration: str) -> None:
    """Raise `PlansError` for plans or a configuration that are not there and will not be made for a checked task."""
    raw, file = roots.raw / task.dataset, roots.preprocessed / task.dataset / f"{plans}.json"
    if not file.is_file():
        # The demo and the Decathlon are NIfTI.
        own = task.kind == "nnunet" and raw.is_dir()
        ending = load_dataset(raw / "dataset.json").file_ending if own else ".nii.gz"
        check_plannable(plans, configuration, ending, file)


def download_task(wanted: Path, mirror: str | None, report: Callable[[str, int, int], None]) -> bool:
    """Download a Decathlon folder from its public archive; return False if it exists. Raises as `download`."""
    from ppgs.download.decathlon import SOURCE, download

    return download(wanted, mirror or SOURCE, report)


def prepare(
    task: str,
    roots: Roots,
    plans: str,
    configuration: str,
    report: Callable[[str, int, int], None],
    *,
    geometry: Literal["header", "voxel"] = "header",
    warn: Callable[[str], object] = lambda _: None,
    plans_from: str | None = None,
) -> Prepared:
    """Convert, check, plan and preprocess whatever is missing; calls `report(step, done, total)` and `warn(message)`.

    With `plans_from` (a run, checkpoint, model zip or plans file) the plans are transferred from there, and named
    after their dataset where `plans` is nnU-Net's default. Raises `DatasetError`, `PlansError` or `BadInput`.
    """
    resolved = resolve_task(task, roots)
    check_folders(roots, resolved)
    check_task(resolved, roots)
    if plans_from is None:
        check_plans_to_come(resolved, roots, plans, configuration)
    # Imports nnU-Net, which takes seconds: after the task is known to exist.
    from ppgs.nnunet.host.environment import prepare_environment

    prepare_environment(roots)
    from ppgs.nnunet.preparation.pipeline import Preparation

    transferred: dict[str, Any] | None = None
    if plans_from is not None:
        transferred = _read_plans(plans_from, roots)
        if plans == "nnUNetPlans":
            plans = f"{transferred['plans_name']}From{transferred['dataset_name'].removeprefix('Dataset')}"
    notes: list[str] = []

    def tell(message: str) -> None:
        notes.append(message)
        warn(message)

    preparation = Preparation(
        resolved, roots, plans, configuration, report, geometry=geometry, warn=tell, plans_from=transferred
    )
    made = preparation.run()
    return Prepared(
        dataset=resolved.dataset,
        raw=preparation.raw,
        preprocessed=preparation.preprocessed,
        facts=PlanFacts.of(made, made.configuration(configuration)),
        notes=tuple(notes),
    )


def _read_plans(given: str, roots: Roots) -> dict[str, Any]:
    """Read plans from a file, model zip, checkpoint or run; raises `PlansError` or `BadInput`."""
    if given.endswith(".json"):
        plans = read_json(Path(given))
    else:
        source = find_weights(given, roots.results)
        if source.suffix == ".zip":
            plans = plans_in(source)
        else:
            from ppgs.nnunet.checkpoints.pretrained import read_pretrained

            plans = read_pretrained(source, given).plans
    if not plans:
        raise BadInput("the checkpoint holds no plans of nnU-Net", given, "give its plans.json")
    # Before nnU-Net reads what they name.
    parse_plans(plans, given)
    return plans
