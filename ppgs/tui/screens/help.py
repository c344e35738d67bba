"""The help screen: keys and the meaning of signs."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from ppgs.tui.screens.dialog import Dialog

KEYS = (
    ("1 - 8", "the tabs"),
    ("n  p", "next and previous run (or fold)"),
    ("o", "overlay all runs in the curves"),
    ("tab", "move between panels"),
    ("+ -  arrows  r", "in a plot: zoom, pan, reset (and with the mouse)"),
    ("arrows  space", "in the slices: earlier and later; play"),
    ("v  b", "in the slices: one class, other contours"),
    ("/  escape", "in the log: search, all lines again"),
    ("s", "stop the training with a checkpoint"),
    ("c", "resume a run that stopped or whose process is gone"),
    ("e  x", "save the view as SVG, the curves as CSV, right here"),
    ("d", "dark or light"),
    ("?  ctrl+p", "this help, all commands"),
    ("q  ctrl+c", "leave; asks first where it opened with the training"),
)
SIGNS = (
    ("▶ ✓ ■ ✗ !", "training, finished, stopped, failed, presumed dead"),
    ("staircase", "patch size over the epochs; ▲ is now; click for a stage"),
    ("⠤ ⠐ in a plot", "line, points; vertical lines: a new stage begins"),
    ("pseudo Dice", "line: nnU-Net's moving average; points: classes"),
    ("left, ends", "by voxels, as later stages cost more"),
    ("saves", "against a constant patch size"),
    ("~", "estimated, not measured"),
)


class Help(Dialog[None]):
    BINDINGS: ClassVar = [Binding("escape,q,question_mark,f1,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "keys and signs"
            box.border_subtitle = "escape closes"
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column()
            for key, words in (*KEYS, *SIGNS):
                table.add_row(Text(key, "bold"), words)
            yield Static(table)
