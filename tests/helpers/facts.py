"""Plans as facts, for tests of schedules that need no data."""

from __future__ import annotations

from typing import Any

from ppgs.estimate.shipped_tasks import read_task
from ppgs.schedule import PlanFacts

TASK = "Task04_Hippocampus"

HIPPOCAMPUS = PlanFacts(
    dataset="Dataset004_Hippocampus",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    patch_size=(40, 56, 40),
    batch_size=9,
    step=(8, 8, 8),
)


def raw_plans() -> dict[str, Any]:
    """nnU-Net's plans, as far as they are read."""
    known = read_task(TASK)
    network = known.network
    section = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": known.made_for.batch_size,
        "patch_size": list(known.made_for.patch_size),
        "median_image_size_in_voxels": list(known.median_image_size),
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "architecture": {
            "network_class_name": network.class_name,
            "arch_kwargs": network.kwargs,
            "_kw_requires_import": list(network.imports),
        },
    }
    return {
        "dataset_name": known.made_for.dataset,
        "plans_name": "nnUNetPlans",
        "configurations": {"3d_fullres": section},
    }
