"""The network's facts are those that nnU-Net would build."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ppgs.estimate.network import Network
from ppgs.plans import Configuration, parse_dataset

CONFIGURATION = Configuration(
    name="3d_cascade_fullres",
    patch_size=(40, 56, 40),
    batch_size=2,
    strides=((1, 1, 1), (2, 2, 2)),
    spacing=(1.0, 1.0, 1.0),
    data_identifier="nnUNetPlans_3d_fullres",
    architecture="dynamic_network_architectures.architectures.unet.PlainConvUNet",
    architecture_kwargs={"features_per_stage": [32, 64]},
)
LABELLINGS: dict[str, dict[str, Any]] = {
    "plain": {"background": 0, "anterior": 1, "posterior": 2},
    "ignore": {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2, 3], "core": [2, 3]},
    "regions with ignore": {"background": 0, "whole": [1, 2, 3], "core": 3, "ignore": 4},
}


@pytest.mark.parametrize("labels", LABELLINGS.values(), ids=list(LABELLINGS))
def test_channels_are_those_of_nnunet(labels: dict[str, Any]) -> None:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels

    raw = {"channel_names": {"0": "MRI", "1": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    order = [1, 2] if any(isinstance(value, list) for value in labels.values()) else None
    if order:
        raw["regions_class_order"] = order
    theirs = LabelManager(labels, order)
    plans = SimpleNamespace(get_label_manager=lambda _: theirs)

    for previous in (None, "3d_lowres"):
        network = Network.of(CONFIGURATION.model_copy(update={"previous_stage": previous}), parse_dataset(raw))
        stage = SimpleNamespace(previous_stage_name=previous)
        assert network.channels == determine_num_input_channels(plans, stage, raw)
        assert network.heads == theirs.num_segmentation_heads
