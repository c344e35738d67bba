"""The canvas for boxes and curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual_hires_canvas import Canvas, HiResMode


class StyledCanvas(Canvas):
    """Gives every segment a style: Textual's filter for NO_COLOR fails on segments that have none."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        return Strip([Segment(text, style or Style.null(), extra) for text, style, extra in strip], strip.cell_length)

    def set_hires_pixels(
        self, coordinates: Iterable[tuple[Any, Any]], hires_mode: HiResMode | None = None, style: str = "white"
    ) -> None:
        """Set pixels as Canvas does, but refresh once instead of after every cell."""
        with self.batch_refresh():
            super().set_hires_pixels(coordinates, hires_mode, style)
