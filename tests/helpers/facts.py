"""Plans as facts, for tests of schedules that need no data."""

from __future__ import annotations

from ppgs.schedule import PlanFacts

HIPPOCAMPUS = PlanFacts(
    dataset="Dataset004_Hippocampus",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    patch_size=(40, 56, 40),
    batch_size=9,
    step=(8, 8, 8),
)
