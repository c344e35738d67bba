from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.errors import ScheduleError
from ppgs.schedule import Schedule, Stage
from ppgs.schedule.rescale import rescaled


def schedule(*epochs: int) -> Schedule:
    stages = tuple(Stage(patch_size=(8 * (i + 1),) * 3, batch_size=2, epochs=n) for i, n in enumerate(epochs))
    return Schedule(stages=stages)


def test_what_is_left_is_shared_out_in_proportion() -> None:
    assert [s.epochs for s in rescaled(schedule(4, 4, 8), 6, 26).stages] == [4, 6, 16]
    assert [s.epochs for s in rescaled(schedule(4, 4, 8), 0, 8).stages] == [2, 2, 4]
    with pytest.raises(ScheduleError) as refused:
        rescaled(schedule(4, 4, 8), 6, 7)
    assert refused.value.problems[0].remedy == "give at least 8"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.data())
def test_no_epoch_that_is_trained_changes(epochs: list[int], data: st.DataObject) -> None:
    before = schedule(*epochs)
    done = data.draw(st.integers(0, before.epochs - 1))
    left = len(epochs) - before.stage_index_at(done)
    wanted = data.draw(st.integers(done + left, done + left + 200))
    after = rescaled(before, done, wanted)
    assert after.epochs == wanted
    assert [after.stage_index_at(e) for e in range(done + 1)] == [before.stage_index_at(e) for e in range(done + 1)]
    assert [s.patch_size for s in after.stages] == [s.patch_size for s in before.stages]
    if wanted == before.epochs:
        assert after == before
