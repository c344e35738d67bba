"""Keys, and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = (
    ("1 - 8", "overview, curves, slices, stages, system, log, run, runs"),
    ("n  p", "next and previous run (or fold)"),
    ("o", "overlay all runs in the curves"),
    ("tab", "move between panels"),
    ("+ -  arrows  r", "in a plot: zoom, pan, reset; the mouse wheel and dragging do so too"),
    ("space  v  b", "in the slices: play all, one class after the other, which contours"),
    ("/  escape", "in the log: search, all lines again"),
    ("s", "stop the training with a checkpoint"),
    ("c", "resume a run that was stopped or whose process is gone"),
    ("e  x", "save this view as SVG, the curves as CSV, in the current folder"),
    ("d", "dark or light"),
    ("ctrl+p", "all commands"),
    ("q  ctrl+c", "leave; asks first where it opened with the training"),
)
SIGNS = (
    ("▶ ✓ ■ ✗ !", "training, finished, stopped, failed, presumed dead"),
    ("staircase", "patch size over the epochs; ▲ is the present one"),
    ("⠤ ⠐ in a plot", "line, points; vertical lines: a new stage begins"),
    ("pseudo Dice", "the line is nnU-Net's moving average, points are classes"),
    ("saves", "time, energy and CO2 against a constant patch size, estimated"),
    ("left, ends", "later stages cost more: measured stages are extrapolated by voxels"),
    ("~", "estimated, not measured"),
)


class Help(ModalScreen[None]):
    BINDINGS: ClassVar = [Binding("escape,q,question_mark,f1,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "keys and signs"
            box.border_subtitle = "escape closes"
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column()
            for key, words in KEYS:
                table.add_row(Text(key, "bold"), words)
            table.add_row()
            for key, words in SIGNS:
                table.add_row(Text(key, "bold"), words)
            yield Static(table)
