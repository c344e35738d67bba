"""Stages and schedules as data, and the rules that make them.

Pure and cheap to import: Pydantic, YAML and the standard library alone.
"""

from ppgs.schedule.files import dump, load, parse, read_shipped
from ppgs.schedule.growth import GROWTH, grow
from ppgs.schedule.model import PlanFacts, Schedule, Stage, Validation
from ppgs.schedule.recipe import MODES, Recipe, resolve

__all__ = [
    "GROWTH",
    "MODES",
    "PlanFacts",
    "Recipe",
    "Schedule",
    "Stage",
    "Validation",
    "dump",
    "grow",
    "load",
    "parse",
    "read_shipped",
    "resolve",
]
