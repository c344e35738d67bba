"""The present patch beside the plan's, as boxes at one scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static
from textual_hires_canvas import HiResMode

from ppgs.formatting import patch_text
from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.canvas import StyledCanvas

# Cabinet projection: depth is drawn at half length under 45 degrees.
_DEPTH = 0.5 * 2**-0.5
_Line = tuple[float, float, float, float]


class PatchBoxes(Vertical, Panel):
    def compose(self) -> ComposeResult:
        yield StyledCanvas(1, 1)
        yield Static(id="patch-words", markup=False)

    def facts(self, view: View) -> object:
        state = view.run.state
        return (view.current, state.stage, list(state.stages), self.query_one(StyledCanvas).size)

    def draw(self, view: View) -> None:
        stages = view.run.state.stages
        self.border_title = "patch (y, x)" if stages and len(stages[-1].patch_size) == 2 else "patch (z, y, x)"
        canvas, words = self.query_one(StyledCanvas), self.query_one("#patch-words", Static)
        canvas.reset(size=canvas.size)
        if not stages or canvas.size.width < 8 or canvas.size.height < 3:
            words.update("", layout=False)
            return
        stage = stages[min(max(view.run.state.stage, 0), len(stages) - 1)]
        mine, plan = stage.patch_size, stages[-1].patch_size
        try:
            half = canvas.size.width / 2
            scale = min(_fit(plan, half - 2, canvas.size.height), _fit(mine, half - 2, canvas.size.height))
            for patch, left, colour in (
                (mine, 0.5, self.palette.present),
                (plan, half + 0.5, self.palette.done),
            ):
                self._draw(canvas, patch, scale, left, colour)
        except (ZeroDivisionError, OverflowError):
            return
        share = math.prod(mine, start=1.0) / math.prod(plan, start=1.0)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(patch_text(mine).ljust(int(half)), f"bold {self.palette.present}")
        line.append(f"plan {patch_text(plan)}", self.palette.done)
        line.append(
            f"\nbatch {stage.batch_size}".ljust(int(half) + 1) + f"{share:.{0 if share >= 0.01 else 2}%} of voxels",
            self.palette.muted,
        )
        words.update(line, layout=False)

    def _draw(self, canvas: StyledCanvas, patch: tuple[int, ...], scale: float, left: float, colour: str) -> None:
        bottom = canvas.size.height - 1.01  # the canvas clips lines at the top of its last row
        lines = [(left + a * 2, bottom - b, left + c * 2, bottom - d) for a, b, c, d in _edges(patch, scale)]
        canvas.draw_hires_lines(lines, hires_mode=HiResMode.BRAILLE, style=colour)


def _sides(patch: tuple[int, ...]) -> tuple[float, float, float]:
    """Return width, height and depth: x, y and z."""
    z, y, x = patch if len(patch) == 3 else (0, *patch[-2:])
    return float(x), float(y), float(z)


def _fit(patch: tuple[int, ...], columns: float, rows: float) -> float:
    """Return terminal rows per voxel such that a box fits; a cell is twice as high as wide."""
    x, y, z = _sides(patch)
    return min((columns / 2 - 0.5) / (x + z * _DEPTH), (rows - 1.5) / (y + z * _DEPTH))


def _edges(patch: tuple[int, ...], scale: float) -> Iterator[_Line]:
    """Yield the visible edges, in rows, from the front's lower left corner up and right."""
    x, y, z = (side * scale for side in _sides(patch))
    d = z * _DEPTH
    yield from ((0, 0, x, 0), (x, 0, x, y), (x, y, 0, y), (0, y, 0, 0))
    if z:
        yield from ((0, y, d, y + d), (d, y + d, x + d, y + d), (x, y, x + d, y + d))
        yield from ((x, 0, x + d, d), (x + d, d, x + d, y + d))
