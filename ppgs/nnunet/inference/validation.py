"""The final validation of a training: what nnU-Net's `perform_actual_validation` writes, voxel for voxel.

Sliding window and export are those of a prediction: memory does not grow with the number of classes. Workers are
forked, where nnU-Net starts some that import PyTorch and nnU-Net again, once to export and once to score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

from ppgs import upstream
from ppgs.errors import DoesNotFit, Problem
from ppgs.nnunet.inference.cases import Cases, be_quiet_worker
from ppgs.nnunet.inference.export import streams
from ppgs.nnunet.inference.memory import Needs, Room, choose_place, needs_of_prepared
from ppgs.nnunet.inference.next_stage import NextStage
from ppgs.nnunet.inference.pending import Exports
from ppgs.nnunet.inference.window import Place, Predictor, Stored
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.processes.pool import WorkerPool, quickest_start, watched_pools
from ppgs.runs.cascade import read_splits, segmented_by_folds
from ppgs.runs.folder import RunFolder

# Ranks wait for each other after this many cases, as nnU-Net's do: a slow one must not fall too far behind.
_IN_STEP = 20


def segment(trainer: PpgsTrainer, run: RunFolder, *, probabilities: bool) -> None:
    """Segment this rank's share of the validation cases, also for the next stage of a cascade."""
    ranks = trainer.settings.ranks
    _, validation = trainer.do_split()
    cases = sorted(validation[ranks.rank :: ranks.count])
    segmentation = _Segmentation(trainer, run, cases, probabilities=probabilities)
    # Before hours of work: damaged cases of the next stage are found here.
    following = _following(trainer, run, cases)
    exports: Exports[Needs] = Exports()
    workers = max(1, min(default_num_processes, len(cases)))
    with WorkerPool(workers, be_quiet_worker, context=quickest_start()) as pool:
        try:
            for number, case in enumerate(cases, 1):
                segmentation.begin(case, following[case], pool, exports)
                exports.wait(workers)
                if number % _IN_STEP == 0 and number < len(validation) // ranks.count:
                    ranks.agree(None)
            exports.wait()
        finally:
            exports.close()


def score(trainer: PpgsTrainer, run: RunFolder) -> None:
    """Write nnU-Net's summary of all segmentations."""
    labels, dataset_json = trainer.label_manager, trainer.dataset_json
    with watched_pools(context=quickest_start()):
        metrics = compute_metrics_on_folder(
            str(Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"),
            str(run.validation),
            str(run.summary),
            trainer.plans_manager.image_reader_writer_class(),
            dataset_json["file_ending"],
            labels.foreground_regions if labels.has_regions else labels.foreground_labels,
            labels.ignore_label,
            num_processes=default_num_processes * trainer.settings.ranks.local_count,
            chill=True,
        )
    for label, values in metrics["mean"].items():
        trainer.logger.log_summary(f"final_val/class_{label}_dice", values["Dice"])
    mean = metrics["foreground_mean"]["Dice"]
    trainer.logger.log_summary("final_val/foreground_dice", mean)
    trainer.print_to_log_file("Validation complete")
    trainer.print_to_log_file("Mean Validation Dice: ", mean)


@dataclass(frozen=True)
class _Following:
    """A case in a cascade's next stage: its shape there, and the file to write without its ending."""

    stage: NextStage
    shape: tuple[int, ...]
    truncated: Path


def _following(trainer: PpgsTrainer, run: RunFolder, cases: Sequence[str]) -> dict[str, list[_Following]]:
    """Return what is to be written for the next stages, of cases that are preprocessed for them."""
    found: dict[str, list[_Following]] = {case: [] for case in cases}
    plans, preprocessed = trainer.plans_manager, Path(trainer.preprocessed_dataset_folder_base)
    splits = preprocessed / upstream.SPLITS
    is_of_all = run.fold == "all" and splits.is_file()
    better = segmented_by_folds(run.model, read_splits(splits)) if is_of_all else set()
    for name in trainer.configuration_manager.next_stage_names or ():
        folder = run.model / upstream.NEXT_STAGE / name
        try:
            stage = NextStage(name, plans, trainer.configuration_manager, trainer.dataset_json, preprocessed)
        except FileNotFoundError:
            trainer.print_to_log_file(f"nothing is preprocessed for the next stage, {name}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases:
            # What a fold says of a case that it has not trained on, as fold `all` has, is worth more.
            if case in better and (folder / f"{case}.b2nd").is_file():
                continue
            try:
                found[case].append(_Following(stage, stage.shape(case), folder / case))
            except FileNotFoundError:
                trainer.print_to_log_file(f"{case} is not preprocessed for the next stage, {name}")
    return found


def _write(
    cases: Cases, truncated: Path, logits: Stored, properties: dict[str, Any], following: Sequence[_Following]
) -> None:
    """Write what a case's logits say, in a worker."""
    cases.export(logits, properties, truncated)
    for one in following:
        one.stage.write(logits, one.shape, properties, one.truncated)


class _Segmentation:
    """Takes preprocessed cases through the trainer's network as it is now."""

    def __init__(self, trainer: PpgsTrainer, run: RunFolder, cases: Sequence[str], *, probabilities: bool) -> None:
        self._trainer, self._folder = trainer, run.validation
        plans, setup, dataset_json = trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
        self._output = Cases(plans, setup, dataset_json, probabilities=probabilities)
        self._together = probabilities or not streams(plans, setup, dataset_json)
        self._cases = trainer.dataset_class(
            trainer.preprocessed_dataset_folder,
            list(cases),
            folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage,
        )
        self._predictor = Predictor(
            tile_step_size=0.5, use_gaussian=True, use_mirroring=True, device=trainer.device, allow_tqdm=False
        )
        self._predictor.manual_initialization(
            trainer.network,
            plans,
            setup,
            None,
            dataset_json,
            type(trainer).__name__,
            trainer.inference_allowed_mirroring_axes,
        )

    def begin(self, case: str, following: Sequence[_Following], pool: WorkerPool, exports: Exports[Needs]) -> None:
        """Predict a case, and have a worker of the pool write the result."""
        self._trainer.print_to_log_file(f"predicting {case}")
        data, properties = self._load(case)
        written = (properties["shape_before_cropping"], *(one.shape for one in following))
        needs = needs_of_prepared(
            data.shape,
            max(map(math.prod, written)),
            self._output.setup,
            heads=self._trainer.label_manager.num_segmentation_heads,
            together=self._together,
        )
        place = self._place(case, needs, exports)
        stored, storage = self._predictor.logits(data, place, self._folder)
        task = (self._output, self._folder / case, stored, properties, following)
        exports.add(needs, storage, pool.apply_async(_write, task))

    def _load(self, case: str) -> tuple[torch.Tensor, dict[str, Any]]:
        data, _, previous, properties = self._cases.load_case(case)
        # From a memory map it is read-only, which PyTorch does not take.
        data = np.require(data[:], requirements="W")
        if self._trainer.is_cascaded:
            foreground = self._trainer.label_manager.foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(previous[:], foreground, data.dtype)))
        return torch.from_numpy(data), properties

    def _place(self, case: str, needs: Needs, exports: Exports[Needs]) -> Place:
        """Choose where the logits go, in memory while exports in progress leave room for them; else wait for those."""
        while True:
            room = Room.now(self._trainer.device, self._folder)
            taken = sum(other.exporting for other in exports.pending)
            share = room.memory // self._trainer.settings.ranks.local_count - taken
            place = choose_place(needs, replace(room, memory=max(share, 0)), case)
            if place in ("device", "memory"):
                break
            if not (pending := exports.pending):
                # A case that is too large for a share may have all that is free.
                place = choose_place(needs, room, case)
                break
            exports.wait(len(pending) - 1)
        if isinstance(place, Problem):
            raise DoesNotFit(place.what, place.where, place.remedy)
        return place
