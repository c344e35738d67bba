"""The figures of the documentation show the schedules as they are."""

from __future__ import annotations

import pytest

from tests.docs.test_reference import DOCS, script

figures = script("figures")


@pytest.mark.parametrize("name", figures.FIGURES)
def test_the_figure_shows_the_current_schedules(name: str) -> None:
    text = (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert f"digest {figures.digest(figures.FIGURES[name]())}" in text, "run python .ci/figures.py"
