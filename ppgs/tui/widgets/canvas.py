"""The canvas that boxes and curves are drawn on."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual_hires_canvas import Canvas


class StyledCanvas(Canvas):
    """Gives every segment a style: Textual's filter for NO_COLOR fails on segments that have none."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        return Strip([Segment(text, style or Style.null(), extra) for text, style, extra in strip], strip.cell_length)
