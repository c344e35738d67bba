"""What every panel draws from: one snapshot, handed down; panels never read files or devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import App
from textual.widget import Widget

from ppgs.tui.palette import Palette, palette
from ppgs.tui.source import WatchedRun
from ppgs.tui.system import Reading


@dataclass(frozen=True)
class View:
    """The runs, the one that is looked at, and the machine; `now` is the wall clock's time."""

    runs: Sequence[WatchedRun]
    current: int
    overlay: bool
    reading: Reading | None
    now: float

    @property
    def run(self) -> WatchedRun:
        return self.runs[self.current]


class Panel(Widget):
    """Mixin of everything that shows a part of a view."""

    def show(self, view: View) -> None:
        raise NotImplementedError

    @property
    def palette(self) -> Palette:
        app: App[object] = self.app
        return palette(app)

    @property
    def is_shown(self) -> bool:
        """Whether it, and all that it lies in, is displayed: what is hidden is not drawn."""
        return self.is_mounted and all(w.display for w in self.ancestors_with_self if isinstance(w, Widget))
