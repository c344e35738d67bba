"""The name that a requested schedule has: in the run's name, in its files and in `plan-schedule`."""

from __future__ import annotations

from pathlib import Path

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
