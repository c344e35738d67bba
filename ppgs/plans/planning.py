"""Plans and configurations that planning makes, so that others are refused before it begins."""

from __future__ import annotations

from ppgs import upstream
from ppgs.errors import PlansError, nearest


def check_plannable(plans: str, configuration: str, file_ending: str, where: object) -> None:
    """Raise `PlansError` if planning a dataset with images of this format gives no such plans or configuration."""
    if plans not in upstream.PLANNERS:
        made = next((name for name, planner in upstream.PLANNERS.items() if planner == plans), None)
        other = f"'nnUNetv2_plan_experiment -d ID -overwrite_plans_name {plans}'"
        options = "-gpu_memory_target, -overwrite_target_spacing or -pl"
        remedy = (
            f"{nearest(plans, upstream.PLANNERS)}; others are made by {other} with {options}"
            if made is None
            else f"give --plans {made}, which this planner makes"
        )
        raise PlansError(f"there are no plans '{plans}'", where, remedy)
    if configuration not in upstream.CONFIGURATIONS:
        raise PlansError(
            f"nnU-Net plans no configuration '{configuration}'",
            "--configuration",
            nearest(configuration, upstream.CONFIGURATIONS),
        )
    if file_ending.lower() in upstream.FLAT and configuration != "2d":
        raise PlansError(
            f"there is no configuration '{configuration}' of {file_ending} images, which have two dimensions",
            "--configuration",
            "use --configuration 2d",
        )
