"""Progress reports while nnU-Net converts a dataset."""

from __future__ import annotations

import pytest

from ppgs.nnunet.preparation.conversion import polled


def test_a_function_quicker_than_the_first_look_is_told_of() -> None:
    told: list[tuple[str, int, int]] = []
    with polled(lambda *step: told.append(step), "converting", lambda: 3, 3):
        pass
    assert told == [("converting", 3, 3)]


def test_a_function_that_failed_is_not_told_of_as_done() -> None:
    told: list[tuple[str, int, int]] = []
    with (
        pytest.raises(ValueError, match="damaged"),
        polled(lambda *step: told.append(step), "converting", lambda: 3, 3),
    ):
        raise ValueError("damaged")
    assert not told
