"""The name that a requested schedule has: in the run's name, in its files and in `plan-schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppgs.runs.request import TrainingRequest
from ppgs.schedule.requests import make_schedule, read_schedule
from tests.helpers.facts import HIPPOCAMPUS


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        ("mine.yaml", "mode: efficiency\n", "mine"),
        ("mine.yaml", "name: other\nmode: efficiency\n", "other"),
        ("my schedule_2.yml", "mode: constant\n", "my-schedule-2"),
        ("größe.yaml", "mode: constant\n", "gr--e"),
        ("高速.yaml", "mode: constant\n", "custom"),
        (f"{'x' * 80}.yaml", "mode: constant\n", "x" * 64),
    ],
)
def test_a_schedule_is_named_after_its_file(tmp_path: Path, file: str, content: str, name: str) -> None:
    (tmp_path / file).write_text(content)
    named, text = read_schedule(str(tmp_path / file))
    assert named == name
    assert make_schedule(TrainingRequest(task="", schedule=text, schedule_name=named), HIPPOCAMPUS).name == name


def test_a_trainer_classs_number_of_epochs_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("mode: efficiency\nepochs: 70\n")

    def epochs(schedule: object, **given: Any) -> int:
        named, text = read_schedule(str(schedule), **given)
        return make_schedule(TrainingRequest(task="", schedule=text, schedule_name=named), HIPPOCAMPUS).epochs

    assert [epochs("efficiency"), epochs("efficiency", demo=True)] == [1000, 40]
    for demo in (False, True):
        assert epochs("efficiency", demo=demo, epochs=100) == 100
        assert epochs(tmp_path / "long.yaml", demo=demo, epochs=100) == 70
