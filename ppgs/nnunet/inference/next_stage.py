"""First-stage segmentations that a cascade's second stage trains on: makes the missing ones.

The first stage's final validation writes them only where the second stage was preprocessed before. Here they are made
when the second stage wants them, in the same way: every case by the fold that did not train on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs import upstream
from ppgs.errors import PlansError
from ppgs.nnunet.data.cases import checked
from ppgs.nnunet.inference.export import deciding, streams
from ppgs.nnunet.inference.model import load_model
from ppgs.nnunet.inference.window import Stored
from ppgs.nnunet.network.precision import inference
from ppgs.plans import Plans
from ppgs.processes.limits import cpu_count
from ppgs.runs.cascade import cases_of, first_stage_runs, read_splits, training_command
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import turn
from ppgs.runs.manifest import Manifest
from ppgs.tasks import Roots

Report = Callable[[str, int, int], None]


class NextStage:
    """A cascade's next configuration: segmentations are written as it reads them.

    Raises `FileNotFoundError` if nothing is preprocessed for it.
    """

    def __init__(
        self, configuration: str, plans: PlansManager, setup: Any, dataset_json: dict[str, Any], preprocessed: Path
    ) -> None:
        """`setup` is the stage before it, whose segmentations are written."""
        self._plans, self._setup, self._dataset_json = plans, setup, dataset_json
        self._folder = str(preprocessed / plans.get_configuration(configuration).data_identifier)
        self._dataset_class = infer_dataset_class(self._folder)

    def shape(self, case: str) -> tuple[int, ...]:
        """Return the shape of a preprocessed case; raises `FileNotFoundError` if it is missing."""
        data, *_ = checked(self._dataset_class)(self._folder, [case]).load_case(case)
        return tuple(data.shape[1:])

    def write(
        self,
        logits: torch.Tensor | np.ndarray | Stored,
        shape: tuple[int, ...],
        properties: dict[str, Any],
        truncated: Path,
        *,
        threads: int = 1,
    ) -> None:
        if isinstance(logits, Stored) and not streams(self._plans, self._setup, self._dataset_json):
            logits = logits[:]
        plans, setup = deciding(self._plans, self._setup, self._dataset_json)
        resample_and_save(
            logits,
            shape,
            str(truncated),
            plans,
            setup,
            properties,
            self._dataset_json,
            threads,
            self._dataset_class,
        )


def make_first_stage(
    run: RunFolder,
    manifest: Manifest,
    roots: Roots,
    plans: Plans,
    report: Report,
    prepare: Callable[[str], object],
) -> Path | None:
    """Return the folder with all first-stage segmentations for a cascade's second stage; None for other runs.

    The first stage is the run trained the same way, unless the run was asked to use another. Raises `NoSuchRun` when
    its folds are not finished. `prepare` prepares the first stage's configuration.
    """
    configuration = plans.configuration(manifest.configuration)
    stage = configuration.previous_stage
    if stage is None:
        return None
    if plans.configuration(stage).previous_stage is not None:
        raise PlansError(
            f"{configuration.name} is the third stage of a cascade", "--configuration", "cascades have two stages"
        )
    request, preprocessed = manifest.request, roots.preprocessed / manifest.dataset
    model = run.model.parent / (request.previous_stage or run.in_configuration(stage).model.name)
    splits_file = preprocessed / upstream.SPLITS
    # Too few cases for nnU-Net's folds are trained all together.
    splits = read_splits(splits_file) if splits_file.is_file() or manifest.fold != "all" else []
    cases = cases_of(splits, manifest.fold)
    if manifest.fold == "all":
        # nnU-Net takes every case then, also those that custom splits leave out.
        cases = sorted(path.stem for path in (preprocessed / configuration.data_identifier).glob("*.pkl"))
    runs = first_stage_runs(model, splits, cases, training_command(run, request, stage, request.name))
    prepare(stage)
    predict_next_stage(runs, preprocessed, configuration.name, request.device, report)
    return model / upstream.NEXT_STAGE / configuration.name


def predict_next_stage(
    runs: dict[str, RunFolder], preprocessed: Path, configuration: str, device: str, report: Report
) -> None:
    """Write the first stage's segmentation of every case into its model's `predicted_next_stage/CONFIGURATION`.

    `runs` says which fold segments which case; `preprocessed` is nnU-Net's folder of the task, with both stages'
    cases. Segmentations that are there are kept.
    """
    model = next(iter(runs.values())).model
    folder = model / upstream.NEXT_STAGE / configuration
    folder.mkdir(parents=True, exist_ok=True)
    waiting = "waiting for another process that segments the first stage"
    with turn(folder / ".lock", "the first stage's segmentations", lambda: report(waiting, 0, 0)):
        there = {path.stem for path in folder.iterdir() if path.is_file()}
        missing = [case for case in runs if case not in there]
        staging = folder / ".ppgs-staging"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        done = len(runs) - len(missing)
        try:
            for run in dict.fromkeys(runs[case] for case in missing):
                cases = [case for case in missing if runs[case] == run]
                for _ in _segment(run, cases, preprocessed, configuration, device, staging):
                    for made in staging.iterdir():
                        made.replace(folder / made.name)
                    done += 1
                    report("segmenting the cascade's first stage", done, len(runs))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _segment(
    run: RunFolder, cases: list[str], preprocessed: Path, configuration: str, device: str, target: Path
) -> Iterable[str]:
    """Segment as `nnUNetTrainer.perform_actual_validation` does for its next stage; yield every written case."""
    model = load_model(run.model, [run.checkpoint_final], device, mirroring=True, step_size=0.5)
    own = str(preprocessed / model.setup.data_identifier)
    own_class = checked(infer_dataset_class(own))
    following = NextStage(configuration, model.plans, model.setup, model.dataset_json, preprocessed)
    for case in cases:
        data, _, _, properties = own_class(own, [case]).load_case(case)
        with inference(model.predictor.device, bfloat16=model.bfloat16):
            logits = model.predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data[:])).cpu()
        following.write(logits, following.shape(case), properties, target / case, threads=cpu_count())
        yield case
