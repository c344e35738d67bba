"""Read-only views of nnU-Net's plans and `dataset.json`. Needs neither torch nor nnunetv2.

`model` defines the types, `parsing` reads files into them, `trust` refuses what a file from elsewhere must not name,
`planning` what nnU-Net would not plan.
"""

from ppgs.plans.model import Configuration, Dataset, Plans
from ppgs.plans.parsing import load_dataset, load_plans, load_plans_of, parse_dataset, parse_plans, read_json
from ppgs.plans.planning import check_plannable
from ppgs.plans.trust import TRUST_VARIABLE, check_name, check_parts

__all__ = [
    "TRUST_VARIABLE",
    "Configuration",
    "Dataset",
    "Plans",
    "check_name",
    "check_parts",
    "check_plannable",
    "load_dataset",
    "load_plans",
    "load_plans_of",
    "parse_dataset",
    "parse_plans",
    "read_json",
]
