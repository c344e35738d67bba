"""The curriculum from left to right: a staircase as high as the patch is large, and the training's position."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

from rich.text import Text
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from ppgs.formatting import counted, patch_text
from ppgs.runs.time_left import StageFacts
from ppgs.tui.view import Panel, View

_EIGHTHS = " ▁▂▃▄▅▆▇█"


class Timeline(Static, Panel):
    """Columns are epochs, heights the edge length of the patch. A click chooses a stage."""

    class Chosen(Message):
        def __init__(self, stage: int) -> None:
            super().__init__()
            self.stage = stage

    def on_click(self, event: Click) -> None:
        stages = self.view.run.state.stages if self.view is not None else []
        where = event.get_content_offset(self)
        if stages and where is not None:
            self.post_message(self.Chosen(_columns(stages, self.content_size.width)[where.x]))

    def facts(self, view: View) -> object:
        return (view.current, view.run.status, view.run.state.epoch, list(view.run.state.stages))

    def draw(self, view: View) -> None:
        state, status = view.run.state, view.run.status
        self.border_title = f"curriculum  {self._labels(view.run.state.stages)}"
        width, rows = self.content_size.width, max(self.content_size.height - 1, 1)
        stages = state.stages
        epochs = sum(s.epochs for s in stages)
        if not stages or width < 10 or epochs <= 0:
            self.update(Text("the stages are known when the training begins", self.palette.muted), layout=False)
            return
        at = min(state.epoch, epochs - 1)
        over = status == "finished" or state.epoch >= epochs
        present = _stage_of(stages, at)
        ends = list(accumulate(s.epochs for s in stages))
        columns = _columns(stages, width)
        here = min(int((at + 0.5) * width / epochs), width - 1)
        text = self._stairs(stages, columns, rows, present, here, over)
        text.append("\n")
        text.append(
            self._marker(stages, present, here, width, over, state.epoch - (ends[present] - stages[present].epochs))
        )
        self.update(text, layout=False)

    def _labels(self, stages: list[StageFacts]) -> str:
        if not stages:
            return ""
        first, last = stages[0], stages[-1]
        return f"{patch_text(first.patch_size)} grows to {patch_text(last.patch_size)} in {len(stages)} stages"

    def _stairs(
        self, stages: list[StageFacts], columns: list[int], rows: int, present: int, here: int, over: bool
    ) -> Text:
        edges = [max(_edge(s.patch_size), 1e-9) for s in stages]
        highest = max(edges)
        colours = self.palette
        text = Text(no_wrap=True)
        for row in range(rows):
            floor = (rows - 1 - row) * 8
            for column, stage in enumerate(columns):
                level = max(2, round(edges[stage] / highest * rows * 8))
                glyph = _EIGHTHS[min(max(level - floor, 0), 8)]
                if over or column < here:
                    style = colours.done
                elif stage == present:
                    style = colours.present
                else:
                    style = colours.future
                text.append(glyph, style)
            if row < rows - 1:
                text.append("\n")
        return text

    def _marker(self, stages: list[StageFacts], present: int, here: int, width: int, over: bool, begun: int) -> Text:
        """Return the line below: an arrow under the present epoch, with words beside it that need no colour."""
        stage = stages[present]
        words = f"stage {present + 1}/{len(stages)}  patch {patch_text(stage.patch_size)}  batch {stage.batch_size}"
        if over:
            return Text(f"all {len(stages)} stages done".rjust(width), self.palette.done, no_wrap=True)
        left = stage.epochs - min(max(begun, 0), stage.epochs)
        rest = f"  {counted(left, 'epoch')} left"
        if len(words + rest) + 2 > max(width - here, here + 1):
            words = f"stage {present + 1}/{len(stages)}  {patch_text(stage.patch_size)}"
        words += rest
        right = here + 2 + len(words) <= width
        line = " " * here + "▲ " + words if right else f"{words} ▲".rjust(here + 1)
        return Text(line[:width], f"bold {self.palette.present}", no_wrap=True)


def _columns(stages: list[StageFacts], width: int) -> list[int]:
    """Return the stage that each column shows."""
    epochs = sum(s.epochs for s in stages)
    return [_stage_of(stages, int((c + 0.5) * epochs / width)) for c in range(width)]


def _edge(patch: tuple[int, ...]) -> float:
    """Return the edge of a cube (or square) with as many voxels."""
    return float(math.prod(patch, start=1.0) ** (1 / max(len(patch), 1)))


def _stage_of(stages: list[StageFacts], epoch: int) -> int:
    ends = list(accumulate(s.epochs for s in stages))
    return min(bisect_right(ends, epoch), len(stages) - 1)
