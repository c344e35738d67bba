"""Sources of a trainer's batches: its own augmentation and sampling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ppgs import upstream
from ppgs.nnunet.data.dataset import Pipeline
from ppgs.nnunet.data.keys import Oversampling


def oversampling_of(trainer: Any) -> Oversampling | None:
    """Return the trainer's own choice of samples that show foreground; None if it leaves that to the schedule."""
    share, random = trainer.oversample_foreground_percent, trainer.probabilistic_oversampling
    return Oversampling(share, random) if random or share != upstream.FOREGROUND_SHARE else None


def pipeline_of(trainer: Any, *, batchwise: bool) -> Pipeline:
    """Return the augmentation of a trainer (`nnUNetTrainer.get_dataloaders`), for whole batches if `batchwise`."""
    rotation, dummy_2d, crop, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    final = tuple(trainer.configuration_manager.patch_size)
    labels = trainer.label_manager
    shared = {
        "is_cascaded": trainer.is_cascaded,
        "foreground_labels": labels.foreground_labels,
        "regions": labels.foreground_regions if labels.has_regions else None,
        "ignore_label": labels.ignore_label,
    }
    pipeline = Pipeline(
        # Not this run's own class, which spawned loader processes could not be given.
        trainer=trainer.nnunet_trainer,
        channels=trainer.num_input_channels,
        # A cascade's two transforms of the earlier segmentation work sample by sample.
        batchwise=batchwise and not trainer.is_cascaded,
        rotation=rotation,
        dummy_2d=dummy_2d,
        mirror_axes=mirror_axes,
        deep_supervision_scales=trainer._get_deep_supervision_scales(),
        options={**shared, "use_mask_for_norm": trainer.configuration_manager.use_mask_for_norm},
        validation_options=shared,
    )
    own = tuple(map(int, crop))
    return pipeline if pipeline.crop_size(final) == own else replace(pipeline, own_crop=(final, own))
