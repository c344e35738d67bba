"""Construction of trainers: lengths that their classes set are kept or reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ppgs.nnunet.trainer.factory import _warn_of_lengths
from ppgs.schedule import Recipe, Schedule, resolve
from ppgs.schedule.replan import in_parts
from tests.helpers.facts import HIPPOCAMPUS as FACTS

SCHEDULE = resolve(Recipe(epochs=300, iterations_per_epoch=250), FACTS)


@pytest.mark.parametrize(
    ("own", "asked", "schedule", "expected"),
    [
        # nnU-Net's own numbers are no wish of the class.
        ({}, {}, SCHEDULE, []),
        ({"epochs": 300}, {}, SCHEDULE, []),
        ({"epochs": 50}, {}, SCHEDULE, ["Lab sets 50 epochs, the schedule 300, which counts: --epochs changes it"]),
        ({"epochs": 50}, {"epochs": 300}, SCHEDULE, []),
        ({"epochs": 50}, {}, in_parts(SCHEDULE), []),
        (
            {"iterations": 500},
            {},
            SCHEDULE,
            ["Lab sets 500 iterations, the schedule 250, which counts: --iterations changes it"],
        ),
    ],
)
def test_a_length_that_a_class_sets_is_never_left_out_silently(
    own: dict[str, int], asked: dict[str, int], schedule: Schedule, expected: list[str]
) -> None:
    trainer: Any = SimpleNamespace(
        num_epochs=own.get("epochs", 1000), num_iterations_per_epoch=own.get("iterations", 250)
    )
    request = SimpleNamespace(trainer="Lab", epochs=asked.get("epochs"), iterations=asked.get("iterations"))
    job: Any = SimpleNamespace(manifest=SimpleNamespace(request=request), schedule=schedule)
    said: list[str] = []
    _warn_of_lengths(trainer, job, lambda kind, message: said.append(message))
    assert said == expected
